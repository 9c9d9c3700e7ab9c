"""A comparison: contestants over one base study, each with its own space and the same number of places.

study = "mnist"              # the base: a bundled study, or a study file beside this one
trials = 20                  # places for each contestant's search
draws = 10                   # final runs of each contestant's best settings
metric = "balanced_accuracy"
baseline = "softmax"

[set]                        # changes of the base, for all contestants
training.epochs = 6

[levels]                     # where wanted: everything once for each value
data.minority = [500, 10]

[contestants.softmax]        # a head with its recommended space
[contestants.affinity-m1]    # or a head with a space or constants of its own, and other changes
head = "affinity"
space = { lambda = 0.75, sigma = 10, n_centers = 1 }
set = { training.reweight_from = 0.8 }
published = [0.9928, 0.9783] # figures of others, one for each level: the report shows them beside ours

Instead of `study` the file may have the tables of a study itself: [data], [network], [training] and so on.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from affinity_search.studies import bundled
from affinity_search.studies.errors import StudyFileError, either
from affinity_search.studies.files import lay_over, made, parse, place_data, read, without_comparison
from affinity_search.studies.heads import HEADS
from affinity_search.studies.model.limits import is_file_name, name_mistake
from affinity_search.studies.model.mistakes import given, missing, show_text, unknown
from affinity_search.studies.model.parameters import Constant
from affinity_search.studies.model.spec import StudySpec
from affinity_search.studies.model.writing import flat, to_toml, value_text

KEYS = ("name", "study", "trials", "draws", "metric", "baseline", "set", "levels", "contestants")
CONTESTANTS_KEYS = ("head", "space", "set", "published")
BASELINE = "softmax"
DRAWS = 10
MOST_DRAWS = 10_000
MOST_STUDIES = 500
ONE_DRAWS_VERDICT = 5
NO_STOP = "not allowed in a comparison: each contestant's search gets the same number of places"


@dataclass(frozen=True)
class Entry:
    """One contestant at one level: the study that searches its settings."""

    contestant: str
    level: Mapping[str, Any]  # the study file's keys with their values; empty without levels
    spec: StudySpec
    published: float | None = None  # a figure of others for it, to stand beside ours

    @property
    def level_text(self) -> str:
        """`minority 10`; empty without levels."""
        return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in self.level.items())


@dataclass(frozen=True)
class ComparisonSpec:
    """What is compared, resolved: every contestant's study stands in it whole."""

    name: str
    draws: int
    baseline: str
    entries: tuple[Entry, ...]

    @property
    def contestants(self) -> list[str]:
        """Their names, in the file's order."""
        return list(dict.fromkeys(entry.contestant for entry in self.entries))

    def to_toml(self) -> str:
        """The comparison as a file that holds all of it, the base study's tables too."""
        return to_toml(_tables(self))

    @property
    def base(self) -> StudySpec:
        """Any of its studies: metric, protocol and data set are the same in all."""
        return self.entries[0].spec

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        entries = [
            {"contestant": each.contestant, "level": dict(each.level), "study": each.spec.to_dict()}
            | ({} if each.published is None else {"published": each.published})
            for each in self.entries
        ]
        return {"name": self.name, "draws": self.draws, "baseline": self.baseline, "entries": entries}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote."""
        entries = tuple(
            Entry(each["contestant"], each["level"], StudySpec.from_dict(each["study"]), each.get("published"))
            for each in plain["entries"]
        )
        return cls(plain["name"], plain["draws"], plain["baseline"], entries)


def load_comparison(source: str, asked: Mapping[str, Any], overrides: Sequence[str] = ()) -> ComparisonSpec:
    """The comparison of a file, of a bundled comparison, or over a bundled study or a study file.

    `asked` are values that replace those of the file: `name`, `trials`, `draws`, `metric`, `baseline`, `heads` (a list
    of heads, each a contestant with its recommended space). `overrides` are changes of the base study.

    Raises:
        StudyFileError: for all mistakes at once.
    """
    raw, folder = _raw(source, asked)
    mistakes = list(_mistakes(raw))
    if mistakes:
        raise StudyFileError(show_text(source), mistakes)
    base, heading = _base(raw, folder, source)
    for override in [*_assignments(raw.get("set", {})), *overrides]:
        mistakes += lay_over(base, [override])
    if base.pop("stop", None) is not None:
        mistakes.append(f"stop: {NO_STOP} (--set stop=none takes it out)")
    entries = []
    for at, level in enumerate(_levels(raw.get("levels", {}))):
        for contestant, about in raw["contestants"].items():
            published = about["published"][at] if "published" in about else None
            published = None if published is None or math.isnan(published) else published
            try:
                study = _study(base, contestant, about, level, raw, heading)
                entries.append(Entry(contestant, level, study, published))
            except StudyFileError as error:
                mistakes += [f"contestants.{contestant}: {line}" for line in error.mistakes]
    if mistakes:
        raise StudyFileError(show_text(source), list(dict.fromkeys(mistakes)))
    baseline = raw.get("baseline", BASELINE if BASELINE in raw["contestants"] else next(iter(raw["contestants"])))
    return ComparisonSpec(_name(raw, heading), raw.get("draws", DRAWS), baseline, tuple(entries))


def is_comparison_file(source: str) -> bool:
    """Whether this is a bundled comparison, or a file with contestants. Raises StudyFileError for an unreadable one."""
    if source in bundled.comparisons():
        return True
    return is_file_name(source) and "contestants" in parse(read(source), source)


def _raw(source: str, asked: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """The comparison's tables with what is asked for laid over them, and the folder that its paths start from."""
    raw: dict[str, Any]
    if source in bundled.comparisons():
        raw, folder = parse(bundled.comparison_text(source), source) | {"name": source}, Path()
    elif is_file_name(source):
        raw, folder = parse(read(source), source), Path(source).parent
        if "contestants" not in raw:
            raw = {"study": Path(source).name}
        elif "study" not in raw and "data" in raw:
            raw = {key: raw[key] for key in KEYS if key in raw} | {"study": without_comparison(raw)}
    else:
        raw, folder = {"study": source}, Path()
    raw |= {key: value for key, value in asked.items() if value is not None and key != "heads"}
    if asked.get("heads") is not None:
        raw["contestants"] = {head: {} for head in asked["heads"]}
    return raw, folder


def _mistakes(raw: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{key}: {unknown((key,), KEYS)}" for key in raw if key not in KEYS)
    if not isinstance(raw.get("study"), (str, dict)):
        yield f"study: {missing('a bundled study, or a study file beside this one')}"
    yield from _number(raw, "trials", 100_000)
    yield from _number(raw, "draws", MOST_DRAWS)
    if "name" in raw and (wrong := name_mistake(raw["name"]) if isinstance(raw["name"], str) else "no text"):
        yield f"name: {wrong}"
    contestants = raw.get("contestants")
    if not isinstance(contestants, Mapping) or len(contestants) < 2:
        allowed = "at least two, as tables [contestants.NAME] or with --heads"
        found = list(contestants) if isinstance(contestants, Mapping) else contestants
        yield f"contestants: {missing(allowed) if contestants is None else given(found, allowed)}"
        return
    levels = raw.get("levels", {})
    count = len(list(_levels(levels))) if isinstance(levels, Mapping) else 1
    for name, about in contestants.items():
        yield from _contestant(name, about, count)
    baseline = raw.get("baseline")
    if baseline is not None and baseline not in contestants:
        yield f"baseline: {given(baseline, either(list(contestants)))}"
    if not isinstance(raw.get("set", {}), Mapping):
        yield f"set: {given(raw['set'], 'a table')}"
    yield from _level_mistakes(raw.get("levels", {}), len(contestants))


def _level_mistakes(levels: Any, contestants: int) -> Iterator[str]:
    if not isinstance(levels, Mapping):
        yield f"levels: {given(levels, 'a table')}"
        return
    for key, values in flat(levels):
        if not isinstance(values, list) or not values:
            yield f"levels.{key}: {given(values, 'a list of values')}"
    if contestants * len(list(_levels(levels))) > MOST_STUDIES:
        yield f"levels: too many: contestants times levels may be up to {MOST_STUDIES}"


def _number(raw: Mapping[str, Any], key: str, most: int) -> Iterator[str]:
    value = raw.get(key, 1)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        yield f"{key}: {given(value, f'a whole number from 1 to {most}')}"


def _contestant(name: str, about: Any, levels: int) -> Iterator[str]:
    where = f"contestants.{name}"
    if not isinstance(about, Mapping):
        yield f"{where}: {given(about, 'a table')}"
        return
    if not re.fullmatch(r"[A-Za-z0-9_+-]{1,40}", name):
        yield f"{where}: {given(name, 'a name of 1 to 40 letters, digits, _, + and -')}"
    yield from (f"{where}.{key}: {unknown((key,), CONTESTANTS_KEYS)}" for key in about if key not in CONTESTANTS_KEYS)
    head = about.get("head", name)
    if head not in HEADS:
        yield f"{where}.head: {given(head, either(list(HEADS)))}"
    for key in ("space", "set"):
        if not isinstance(about.get(key, {}), Mapping):
            yield f"{where}.{key}: {given(about[key], 'a table')}"
    published = about.get("published")
    if published is not None and not _is_shares(published, levels):
        allowed = f"a list of {levels} numbers from 0 to 1 or nan, one for each level"
        yield f"{where}.published: {given(published, allowed)}"


def _is_shares(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(map(_is_share, values))


def _is_share(value: Any) -> bool:
    return isinstance(value, float) and (0 <= value <= 1 or math.isnan(value))


def _base(raw: Mapping[str, Any], folder: Path, source: str) -> tuple[dict[str, Any], str]:
    """The base study's tables, and its name."""
    study = raw["study"]
    if isinstance(study, dict):
        tables = copy.deepcopy(study)
        place_data(tables, folder)
        return tables, str(tables.get("name", Path(source).stem))
    if study in bundled.names():
        return parse(bundled.text(study), study), study
    if not is_file_name(study):
        known = either([*bundled.names(), "a study file (.toml)"])
        raise StudyFileError(show_text(source), [f"study: {given(study, known)}"])
    tables = parse(read(str(folder / study)), study)
    place_data(tables, (folder / study).parent)
    return tables, Path(study).stem


def common(specs: Sequence[StudySpec]) -> dict[str, Any]:
    """The values that all studies share, in the shape of a study's tables."""
    tables = [spec.to_dict() for spec in specs]
    found: dict[str, Any] = {}
    for key, value in tables[0].items():
        if key in ("name", "space", "points", "trials"):
            continue
        others = [table.get(key) for table in tables]
        if isinstance(value, dict):
            same = [name for name in value if all(isinstance(o, dict) and o.get(name) == value[name] for o in others)]
            found[key] = {name: value[name] for name in same}
        elif all(other == value for other in others):
            found[key] = value
    return found


def _tables(spec: ComparisonSpec) -> dict[str, Any]:
    """Of a file that makes the same comparison."""
    shared = common([entry.spec for entry in spec.entries])
    shared.get("data", {}).pop("found", None)
    levels: dict[str, list[Any]] = {}
    for entry in spec.entries:
        for key, value in entry.level.items():
            known = levels.setdefault(key, [])
            known += [] if value in known else [value]
    tables: dict[str, Any] = {"name": spec.name, "trials": max(entry.spec.trials for entry in spec.entries)}
    tables |= {"draws": spec.draws, "baseline": spec.baseline}
    tables |= shared
    if levels:
        tables["levels"] = levels
    for name in spec.contestants:
        key = name if "+" not in name else f'"{name}"'  # no bare key of TOML's has a plus
        tables[f"contestants.{key}"] = _contestant_table(spec, name, dict(flat(shared)))
    return tables


def _contestant_table(spec: ComparisonSpec, name: str, shared: Mapping[str, Any]) -> dict[str, Any]:
    mine = [entry for entry in spec.entries if entry.contestant == name]
    first, plain = mine[0], mine[0].spec.to_dict()
    space = plain.pop("space", None)
    apart = {"name", "trials", "network.head", *first.level, *shared}
    changed = {key: value for key, value in flat(plain) if key not in apart and not key.startswith("data.found.")}
    table: dict[str, Any] = {"head": first.spec.network.head} | ({"space": space} if space else {})
    if changed:
        table["set"] = changed
    if any(entry.published is not None for entry in mine):
        table["published"] = [math.nan if entry.published is None else entry.published for entry in mine]
    return table


def _name(raw: Mapping[str, Any], base: str) -> str:
    return str(raw.get("name", f"{base}-comparison"))


def _levels(levels: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the levels' values; one empty level without any."""
    lists = [(key, values) for key, values in flat(levels) if isinstance(values, list)]
    for chosen in itertools.product(*(values for _, values in lists)):
        yield {key: value for (key, _), value in zip(lists, chosen, strict=True)}


def _assignments(tables: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value_text(value)}" for key, value in flat(tables)]


def _study(
    base: Mapping[str, Any],
    contestant: str,
    about: Mapping[str, Any],
    level: Mapping[str, Any],
    raw: Mapping[str, Any],
    heading: str,
) -> StudySpec:
    """The contestant's search. The base's own space and points are another head's."""
    tables = copy.deepcopy(dict(base))
    for key in ("space", "points", "name"):
        tables.pop(key, None)
    level_name = "".join(f".{key.rpartition('.')[2]}{value}" for key, value in level.items())
    tables |= {"name": f"{_name(raw, heading)}{level_name}.{contestant}"}
    tables |= {key: raw[key] for key in ("trials", "metric") if key in raw}
    tables["network"] = dict(tables.get("network", {})) | {"head": about.get("head", contestant)}
    training = dict(tables.get("training", {}))
    space = about.get("space")
    if space is None or "learning_rate" in space:
        training.pop("learning_rate", None)  # every contestant searches its own
    tables["training"] = training
    if space is not None:
        tables["space"] = dict(space)
    changes = [*_assignments(about.get("set", {})), *_assignments(level)]
    spec = made(tables, changes, f"{heading} with {contestant}")
    if spec.stop is not None:
        raise StudyFileError(spec.name, [f"stop: {NO_STOP}"])
    searches = any(not isinstance(parameter, Constant) for _, parameter in (spec.space.items() if spec.space else ()))
    return spec if searches else spec.model_copy(update={"trials": 1})
