"""The real `affinity-search` command in a process of its own, with the fake objective; so are the workers it starts.

Called as Python is (`fake-python -P -m affinity_search …`): the launcher starts its workers with `sys.executable`.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fake_objective import begin_nothing_ahead, install, replace_for_good
from warm import ADDRESS, subprocess_but_warm


def main(arguments: Sequence[str]) -> None:
    """Run `affinity-search` with these arguments."""
    sys.executable = os.environ["FAKE_PYTHON"]
    install(replace_for_good)
    run_really(arguments)


def run_really(arguments: Sequence[str]) -> None:
    """The same without the fake objective."""
    sys.argv = ["affinity-search", *arguments]
    Path("/proc/self/comm").write_text(arguments[0])  # the kernel's name for the process: a fork has its parent's
    begin_nothing_ahead(replace_for_good)
    if ADDRESS in os.environ:
        replace_for_good("affinity_search.search.launch.process.subprocess", subprocess_but_warm)
    if "--on" in arguments:
        _fake_on_ray()
    from affinity_search.search.cli import main

    main()


def _fake_on_ray() -> None:
    """A cluster's nodes choose their own Python."""
    from affinity_search.search.launch.on_ray import RayWorker

    RayWorker.python = sys.executable
    fakes = {key: value for key, value in os.environ.items() if key.startswith("FAKE_")}
    own = RayWorker.environment
    setattr(RayWorker, "environment", lambda self, study: own(self, study) | fakes)  # noqa: B010


if __name__ == "__main__":
    assert sys.argv[1:4] == ["-P", "-m", "affinity_search"], sys.argv
    main(sys.argv[4:])
