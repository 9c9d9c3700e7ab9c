"""What a person wrote in an option, the environment or a .env file: cleaned the same way wherever it names a place."""

from __future__ import annotations

import re
from pathlib import Path

from storage.errors import StorageError

CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def cleaned(text: str, what: str) -> str:
    """Without the blanks, line breaks and quotes that a .env file leaves around a value.

    Raises:
        StorageError: a line break or another control character is left inside. The value itself, which may hold a
            password, is not shown.
    """
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1].strip()
    if found := CONTROL.search(text):
        raise StorageError(f"{what} has the control character {found[0]!r} at position {found.start()}; take it out")
    return text


def expanded(path: str) -> str:
    """With the home folder in the place of a leading ~ or ~USER; a shell leaves it within quotes and after `///`.

    Raises:
        StorageError: there is no such home.
    """
    if not path.startswith("~"):
        return path  # as it was written: Path would tidy it up
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        if "/" not in path and path != "~":
            return path  # a file whose name begins so
        home = path.split("/")[0]
        raise StorageError(f"{home} of {path!r} is no known home folder; write the whole path") from None
