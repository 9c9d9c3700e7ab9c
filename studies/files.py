"""Study files: from a path, or the name of a bundled study, to the model."""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from affinity_search.studies import bundled
from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.model.limits import excesses, name_mistake
from affinity_search.studies.model.mistakes import lines, show, show_text
from affinity_search.studies.model.space import SpaceSpec
from affinity_search.studies.model.spec import StudySpec
from affinity_search.studies.model.tables.sections import head_of

LIMIT_BYTES = 1024 * 1024
# tomllib's time grows with the square of a dotted key's length; a study file has keys of three parts.
MOST_DOTS = 128


def load(source: str, overrides: Sequence[str] = ()) -> StudySpec:
    """The study of a file, or of a bundled study by its name, with `key.path=value` overrides laid over it.

    Raises StudyFileError: for a file that cannot be read, for one that is no TOML, and for all mistakes in it at once.
    """
    is_bundled = _is_bundled(source)
    raw = parse(bundled.text(source) if is_bundled else read(source), source)
    if "contestants" in raw:
        raw = without_comparison(raw)
    raw.setdefault("name", source if is_bundled else Path(source).stem)
    if not is_bundled:
        place_data(raw, Path(source).parent)
    return _laid_over(raw, overrides, source)


COMPARISON = ("contestants", "draws", "baseline", "levels", "set")


def without_comparison(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The study's tables of a file that compares too."""
    return {key: value for key, value in raw.items() if key not in COMPARISON}


def place_data(raw: dict[str, Any], folder: Path) -> None:
    """Make the path of own data absolute: a relative one starts from `folder`, where the study file lies.

    What was found of the data when a study was made is not taken from a file: it is read anew.
    """
    data = raw.get("data")
    if not isinstance(data, dict):
        return
    data.pop("found", None)
    if isinstance(data.get("path"), str):
        data["path"] = str((folder / Path(data["path"]).expanduser()).resolve())


def _recommend_space(raw: dict[str, Any]) -> None:
    """Give a study without a space the one that is recommended for its head; a learning rate that is given stays."""
    head, training = head_of(raw), raw.get("training")
    if head is None or raw.get("space") is not None:
        return
    fixed = isinstance(training, dict) and training.get("learning_rate") is not None
    if space := SpaceSpec.recommended(head, without=["learning_rate"] if fixed else []):
        raw["space"] = space


def made(raw: dict[str, Any], overrides: Sequence[str], source: str) -> StudySpec:
    """The study of these tables with `key.path=value` overrides laid over it, checked as a file's are.

    Raises StudyFileError: for all mistakes at once.
    """
    return _laid_over(raw, overrides, source)


def overridden(spec: StudySpec, overrides: Sequence[str]) -> StudySpec:
    """A study that is there already with `key.path=value` overrides laid over it, checked as a file's are.

    Raises StudyFileError: for all mistakes at once.
    """
    return _laid_over(spec.to_dict(), overrides, spec.name, former=spec.name)


def _laid_over(raw: dict[str, Any], overrides: Sequence[str], source: str, former: str | None = None) -> StudySpec:
    """`former` is a name that the study has already: it is kept, whatever the rule for new ones says."""
    known = lines(list(excesses(raw))) if former else []  # what a stored study has already is kept
    mistakes = lay_over(raw, overrides)
    if any(override.partition("=")[0].strip().startswith("data.") for override in overrides):
        place_data(raw, Path())  # relative to where the command runs; and other data are read anew
    if former is None or any(each.replace(" ", "") == "space=none" for each in overrides):
        _recommend_space(raw)  # never for a stored study as it is: it may search nothing
    name = raw.get("name")
    wrong = name_mistake(name) if isinstance(name, str) and name != former else None
    mistakes += [f"name: {wrong}"] if wrong else []
    mistakes += [line for line in lines(list(excesses(raw))) if line not in known]
    try:
        spec = StudySpec.from_dict(raw, source)
    except StudyFileError as error:
        both = list(dict.fromkeys([*mistakes, *error.mistakes]))
        raise StudyFileError(show_text(source), both, error.left_out) from None
    if mistakes:
        raise StudyFileError(show_text(source), mistakes)
    return spec


def _is_bundled(source: str) -> bool:
    return source in bundled.names()


def parse(text: str, source: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises StudyFileError with the line of what is no TOML."""
    _refuse_long_keys(text, source)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason = show_text(str(error)) + _given_twice(text, str(error))
    except RecursionError:
        reason = "its tables or lists are nested too deeply"
    except ValueError:
        # Integers and dates are turned into Python's outside of tomllib's own error handling.
        reason = "it holds a number with thousands of digits, or a date that does not exist"
    raise StudyFileError(show_text(source), [f"not valid TOML: {reason}"])


def _given_twice(text: str, error: str) -> str:
    """Which key it is that tomllib says has a value already; nothing for its other complaints."""
    at = re.search(r"^Cannot overwrite a value \(at (?:line (\d+), column \d+|end of document)\)", error)
    if at is None:
        return ""
    above = text.splitlines()[: int(at[1]) if at[1] else None]
    key = next((line.partition("=")[0].strip() for line in reversed(above) if "=" in line), "")
    table = next((line.strip().strip("[]").strip() for line in reversed(above) if line.lstrip().startswith("[")), "")
    return f": {show_text('.'.join(filter(None, (table, key)))[:80])} is given twice"


def _refuse_long_keys(text: str, source: str) -> None:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > MOST_DOTS and not line.lstrip().startswith("#"):
            reason = f"more than {MOST_DOTS} dots (at line {number}); break a long list into several lines"
            raise StudyFileError(show_text(source), [reason])


def read(source: str) -> str:
    """The text of a study file. Raises StudyFileError for one that is absent, unreadable, too large or not UTF-8."""
    try:
        content = _content(source)
    except FileNotFoundError:
        raise StudyFileError(show_text(source), [_absent(source)]) from None
    except OSError as error:
        raise StudyFileError(show_text(source), [f"cannot be read: {error.strerror}"]) from None
    except ValueError:
        # A null byte, or half a surrogate pair.
        raise StudyFileError(show_text(source), ["cannot be read: not a possible path"]) from None
    return _decoded(content, source)


def _content(source: str) -> bytes:
    path = Path(source)
    # Not opened before it is known to be a file: opening a pipe waits for its other end.
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise StudyFileError(show_text(source), ["cannot be read: not a regular file"])
    _refuse_large(status.st_size, source)
    with path.open("rb") as file:
        # Files of /proc have no size, and others grow.
        content = file.read(LIMIT_BYTES + 1)
    _refuse_large(len(content), source)
    return content


def _refuse_large(size: int, source: str) -> None:
    if size > LIMIT_BYTES:
        raise StudyFileError(show_text(source), [f"too large: {size} bytes; allowed: up to {LIMIT_BYTES} bytes"])


def _decoded(content: bytes, source: str) -> str:
    try:
        # Some editors begin a file with a byte order mark.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StudyFileError(show_text(source), [f"not UTF-8 text (at line {line})"]) from None


def _absent(source: str) -> str:
    near = get_close_matches(source[:200], bundled.names(), n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"no such file, and no bundled study{meant or '; bundled studies: ' + ', '.join(bundled.names())}"


# What a study can do without: `--set KEY=none` takes it out of the file.
_OF_DATA = ("validation", "minority", "small", "imbalance_factor", "group", "test", "profile")
OPTIONAL = (
    ("space",),
    ("stop",),
    ("training", "learning_rate"),
    ("training", "reweight_from"),
    *(("data", key) for key in _OF_DATA),
    *(("network", "widths"), ("network", "depth")),
)
KINDS = ("sampler.kind", "pruner.kind")
FORM = "--set key.path=value, as in --set training.epochs=20"


def lay_over(raw: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Changes the tables of a file by the overrides, one after the other; returns a line for each malformed one."""
    # A new kind of sampler or pruner takes the old one's options away, but not those given beside it.
    kinds_first = sorted(overrides, key=lambda override: override.partition("=")[0].strip() not in KINDS)
    return [line for override in kinds_first for line in _lay_over(raw, override)]


def _lay_over(raw: dict[str, Any], override: str) -> list[str]:
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    # No key holds control characters, nor the half characters that a terminal's odd bytes become.
    if not equals or not all(keys) or not path.isprintable():
        return [f"--set {show(override)}: not understood; allowed: {FORM}"]
    if path.strip() in KINDS:
        raw[keys[0]] = _of_kind(raw.get(keys[0]), _value(text))
    elif tuple(keys) in OPTIONAL and text.strip().strip("\"'") == "none":
        _remove(raw, keys)
    else:
        _put(raw, keys, _name(text) if keys == ["name"] else _value(text))
    return []


def _of_kind(table: Any, kind: Any) -> dict[str, Any]:
    """The section with this kind: as it is if it had it already, else without the other kind's options."""
    same = isinstance(table, dict) and table.get("kind") == kind
    return dict(table) if same else {"kind": kind}


def _remove(table: dict[str, Any], keys: Sequence[str]) -> None:
    *tables, last = keys
    for key in tables:
        table = table[key] if isinstance(table.get(key), dict) else {}
    table.pop(last, None)


def _put(table: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    *tables, last = keys
    for key in tables:
        below = table.get(key)
        if not isinstance(below, dict):
            # `space.n_centers.low=1` over a list or a bare value starts a range.
            below = table[key] = {}
        table = below
    table[last] = value


def _value(text: str) -> Any:
    """The text as a TOML value; as it stands where it is none, so that `data.set=mnist` needs no quotes."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text.strip()
    # A text of several lines may be a whole TOML file.
    return parsed["value"] if parsed.keys() == {"value"} else text.strip()


def _name(text: str) -> str:
    """A name is text: `name=2024` is no number."""
    value = _value(text)
    return value if isinstance(value, str) else text.strip()
