"""Seconds from `affinity-search launch` to the end of the first training step: the bundled digits and CIFAR-10.

make start DATA=DIR
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from affinity_search.search.worker.loop import FIRST_STEP
from benchmarks.commands import machine

RUNS = 3
LONGEST_S = 300.0
LOOK_EVERY_S = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    data_dir = parser.parse_args().data_dir
    data = ["--data-dir", data_dir] if data_dir else []
    print(f"| study | seconds of {RUNS} runs |\n|---|---|")
    for study, options in (("digits", []), ("cifar10", data)):
        seconds = sorted(first_step_s(study, options) for _ in range(RUNS))
        print(f"| {study} | {', '.join(f'{one:.1f}' for one in seconds)} |", flush=True)
    print(f"\n{machine()}")


def first_step_s(study: str, options: list[str]) -> float:
    """One launch with one worker in an empty database; it is stopped after its first step."""
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        environment = os.environ | {"AFFINITY_SEARCH_STORAGE": f"sqlite:///{folder}/start.db"}
        said = Path(folder) / "said"
        command = [sys.executable, "-P", "-m", "affinity_search", "launch", study, "--workers", "1", *options]
        began = time.monotonic()
        with said.open("wb") as file:
            process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        try:
            _wait_for_step(process, said, began)
            return time.monotonic() - began
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _wait_for_step(process: subprocess.Popen[bytes], said: Path, began: float) -> None:
    while time.monotonic() - began < LONGEST_S:
        assert process.poll() is None, said.read_text()
        logs = re.search(r"logs in (\S+)", said.read_text())
        if logs and any(FIRST_STEP in log.read_text() for log in Path(logs[1]).glob("*.log")):
            return
        time.sleep(LOOK_EVERY_S)
    raise AssertionError(f"no training step in {LONGEST_S:.0f} s:\n{said.read_text()}")


if __name__ == "__main__":
    main()
