"""How our processes start others. No file of the current folder runs in place of an installed module."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import affinity_search

# For Python. Without -P it looks in the current folder first, where anybody's `optuna.py` may lie.
SAFE = "-P"
COMMAND = (SAFE, "-m", "affinity_search")
# In place of a worker's arguments: they come on its stdin (`ahead.py`).
LATER = "--arguments-follow"
# Where trials and news go, with passwords: only the collector's process is told.
NOTIFY = "AFFINITY_SEARCH_NOTIFY"
URI, USER, PASSWORD, TOKEN = (f"MLFLOW_TRACKING_{each}" for each in ("URI", "USERNAME", "PASSWORD", "TOKEN"))
SENDING_VARIABLES = (NOTIFY, URI, USER, PASSWORD, TOKEN)


def surroundings() -> dict[str, str]:
    """Our environment without the entries of PYTHONPATH that mean the current folder, such as the first in `:/mine`,
    and without SENDING_VARIABLES.
    """
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = os.pathsep.join(folder for folder in folders if folder not in ("", "."))
    left_out = {"PYTHONPATH", *SENDING_VARIABLES}
    others = {key: value for key, value in os.environ.items() if key not in left_out}
    return others | ({"PYTHONPATH": kept} if kept else {})


def leave_out_current_folder() -> None:
    """The same for later imports of this process. A checkout that this program runs from stays."""
    ours = Path(affinity_search.__file__).resolve().parents[1]
    sys.path[:] = [entry for entry in sys.path if not _is_current(entry, ours)]


def _is_current(entry: str, ours: Path) -> bool:
    try:
        here = Path.cwd()
        return here != ours and (entry == "" or Path(entry).resolve() == here)
    except OSError:  # the current folder was removed
        return entry == ""
