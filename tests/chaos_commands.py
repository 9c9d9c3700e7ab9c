"""The processes of the chaos test: the commands that it starts, and the workers that these start."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
from warm import ADDRESS, Warm

LEASE_S = 6.0


class Commands:
    """Starts `affinity-search` on one database, each command with a log in a folder."""

    def __init__(self, url: str, folder: Path, address: str) -> None:
        """`address` is the process that forks our commands: importing Keras for each would take most of the time."""
        stored = {"AFFINITY_SEARCH_STORAGE": url, "AFFINITY_SEARCH_FILES": str(folder / "files")}
        self._environment = os.environ | stored | {ADDRESS: address}
        self._folder = folder

    def start(self, arguments: Sequence[str], name: str) -> Warm:
        command = [sys.executable, "-P", "-m", "affinity_search", *arguments]
        with (self._folder / f"{name}.log").open("ab") as log:
            return Warm(command, env=self._environment, stdout=log, stderr=log)


def workers() -> list[psutil.Process]:
    """Ours: what the process that forks is called after the command (see `fake_command`)."""
    return [one for one in psutil.Process().children(recursive=True) if _name(one) == "worker"]


def _name(process: psutil.Process) -> str | None:
    """None for one that has ended meanwhile."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return None
