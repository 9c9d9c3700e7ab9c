"""What a study may be called: one rule for study files, `--name` and `rename`.

Studies that an older version made under another name go on under it.
"""

from __future__ import annotations

from studies.mistakes import given

LONGEST = 200
SUFFIX = ".toml"
RULE = f"1 to {LONGEST} printable characters"


def is_file_name(source: str) -> bool:
    """Whether a command takes the word for a study file's path."""
    return source.lower().endswith(SUFFIX)


def name_mistake(name: str) -> str | None:
    """What is wrong with the name, with what is allowed; None for a good one."""
    allowed = _broken(name)
    return given(name, allowed) if allowed else None


def _broken(name: str) -> str | None:
    """What is allowed instead."""
    if not (1 <= len(name) <= LONGEST and name.isprintable()):
        return RULE
    if not name.strip():
        return "a name that has more than blanks"
    if name.startswith("-"):
        return "a name that does not begin with -, as options do"
    if name in (".", "..") or "/" in name:
        return "a name that is no path: without /, and neither . nor .."
    if is_file_name(name):
        return f"a name that does not end in {SUFFIX}, as study files do"
    return None
