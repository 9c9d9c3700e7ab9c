"""Proves the program on one NVIDIA GPU in one call of about nine minutes, and measures what it makes of it.

    make gpu-check DATA=DIR                                        # on the machine's first GPU
    python -m benchmarks.gpu_check --device cpu --quick --data-dir DIR  # to try the check out: small sizes, a CPU
    python -m benchmarks.gpu_check --parts determinism,rate --out DIR

Each part is a process with a time limit; one that fails ends no other. The parts that only ask whether something works
run beside each other where there are cores for it, then those that measure, one by one. A markdown table is printed,
and --out gets it with all figures (`gpu-check.json`) and what the parts printed (`gpu-check.log`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from affinity_search.search.devices import nvidia
from affinity_search.studies.errors import AffinitySearchError
from benchmarks.commands import machine
from benchmarks.gpu_check import launches, suite, trainings
from benchmarks.gpu_check.setting import Result, Setting

GRACE_S = 15.0  # a launcher stops its workers in ten
MANY_CORES = 12


@dataclass(frozen=True)
class Part:
    """Something to find out. What measures has the device for itself."""

    run: Callable[[Setting], Result]
    limit_s: float
    measures: bool = False


PARTS = {
    "tests": Part(suite.suite, 270),
    "search": Part(launches.search, 180),
    "kill": Part(launches.kill, 240),
    "memory": Part(launches.memory, 180),
    "rate": Part(trainings.rate, 220, measures=True),
    "determinism": Part(trainings.determinism, 200, measures=True),
    "plan": Part(trainings.planned, 80, measures=True),
}


@dataclass(frozen=True)
class Found:
    """A part's result, how long it took, and what it printed."""

    result: Result
    seconds: float
    printed: str


def run_part(setting: Setting, ends: float, name: str) -> Found:
    """In a process of its own, until its limit or the whole check's end, by the monotonic clock, whichever is first."""
    began = time.monotonic()
    limit_s = max(1.0, min(PARTS[name].limit_s * (4 if setting.quick else 1), ends - began))
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        answer, log = Path(folder) / "answer.json", Path(folder) / "log"
        command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", setting.device]
        command += ["--data-dir", str(setting.data_dir)] if setting.data_dir else []
        command += [*(["--quick"] if setting.quick else []), "--one", name, "--answer", str(answer)]
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        code = ended(process, limit_s)
        printed = log.read_text(errors="replace")
        lines = printed.strip().splitlines() or ["nothing was said"]
        if code is None:
            result = Result(False, f"it was ended after {limit_s:.0f} s; its last line: {lines[-1][:200]}")
        elif not answer.exists():
            result = Result(False, f"exit code {code}: {lines[-1][:200]}")
        else:
            result = Result(**json.loads(answer.read_text()))
    print(f"{name}: {'ok' if result.ok else 'NOT OK'}, {result.line}", flush=True)
    return Found(result, time.monotonic() - began, printed)


def ended(process: subprocess.Popen[bytes], limit_s: float) -> int | None:
    """Its exit code; None if it, and every process that it has begun, had to be ended."""
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            _quietly(member.terminate)
        for member in psutil.wait_procs(family, GRACE_S)[1]:
            _quietly(member.kill)
        process.wait()
        return None


def _quietly(signal: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        signal()


def check(setting: Setting, names: Sequence[str], minutes: float) -> dict[str, Found]:
    """All parts, by name and in their order."""
    run = partial(run_part, setting, time.monotonic() + 60 * minutes)
    beside = [name for name in names if not PARTS[name].measures]
    with ThreadPoolExecutor(len(beside) or 1 if len(os.sched_getaffinity(0)) >= MANY_CORES else 1) as pool:
        found = dict(zip(beside, pool.map(run, beside), strict=True))
    return found | {name: run(name) for name in names if PARTS[name].measures}


def table(found: dict[str, Found]) -> str:
    """Markdown."""
    rows = ["| part | | seconds | what was found |", "|---|---|---|---|"]
    for name, part in found.items():
        said = part.result.line.replace("|", "\\|")
        rows.append(f"| {name} | {'ok' if part.result.ok else '**not ok**'} | {part.seconds:.0f} | {said} |")
    return "\n".join(rows)


def surroundings(device: str) -> dict[str, Any]:
    """The machine, and the card as NVML names it."""
    cards = [asdict(gpu) for gpu in nvidia.gpus() if gpu.label == device]
    return {"machine": machine(), "gpu": cards[0] if cards else None}


def write(out: Path, found: dict[str, Found], around: dict[str, Any]) -> None:
    """Three files in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    parts = {name: asdict(part.result) | {"seconds": part.seconds} for name, part in found.items()}
    (out / "gpu-check.json").write_text(json.dumps(around | {"parts": parts}, indent=2) + "\n")
    (out / "gpu-check.md").write_text(f"{table(found)}\n\n{described(around)}\n")
    (out / "gpu-check.log").write_text("".join(f"===== {name}\n{part.printed}\n" for name, part in found.items()))


def described(around: dict[str, Any]) -> str:
    card = f"{around['gpu']['name']}, {around['gpu']['total_mib']} MiB; " if around["gpu"] else ""
    return card + str(around["machine"])


def parts_of(text: str) -> list[str]:
    """In the order of PARTS. Raises ArgumentTypeError for an unknown one."""
    asked = text.split(",")
    unknown = [name for name in asked if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown part {unknown[0]!r}; allowed: {', '.join(PARTS)}")
    return [name for name in PARTS if name in asked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the figures")
    parser.add_argument("--parts", type=parts_of, default=list(PARTS), metavar="A,B", help=", ".join(PARTS))
    parser.add_argument("--device", default="gpu:0", choices=["gpu:0", "cpu"])
    parser.add_argument("--data-dir", type=Path, help="with cifar-10-batches-py")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the check out on a CPU")
    parser.add_argument("--minutes", type=float, default=12.0, help="then the parts that still run are ended")
    parser.add_argument("--one", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    setting = Setting(asked.device, asked.data_dir and asked.data_dir.resolve(), asked.quick)
    if asked.one:
        asked.answer.write_text(json.dumps(asdict(PARTS[asked.one].run(setting))))
        return
    try:
        _ = setting.slot
    except AffinitySearchError as error:
        sys.exit(f"error: {error}")
    found = check(setting, asked.parts, asked.minutes * (10 if asked.quick else 1))
    around = surroundings(asked.device)
    print(f"\n{table(found)}\n\n{described(around)}")
    if asked.out:
        write(asked.out, found, around)
    sys.exit(not all(part.result.ok for part in found.values()))


if __name__ == "__main__":
    main()
