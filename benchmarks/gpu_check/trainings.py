"""What trainings on the device come to: the article's network's rate, whether they repeat, and what precision costs."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import gpu
from benchmarks.commands import Command
from benchmarks.gpu_check.probe import OPERATIONS, Asked
from benchmarks.gpu_check.setting import Result, Setting

GOAL = 0.4  # of the rate of matrix products
DEPTH = 3
BATCH = 640  # the article's


def widths(setting: Setting) -> list[int]:
    return [4] if setting.quick else [64, 128, 256]


def rate(setting: Setting) -> Result:
    """TFLOP/s of whole launches with one and three workers, and of steps of several batch sizes."""
    peer, name = gpu.matrix_rate(setting.device, 512 if setting.quick else gpu.MATRIX[setting.device])
    launches = [_launch(setting, workers, peer) for workers in ([1] if setting.quick else [1, 3])]
    half = "float32" if setting.quick else "mixed_bfloat16"
    batches = [64, 128] if setting.quick else [256, BATCH, 2048]
    told = probed(setting, [*((batch, half) for batch in batches), (batches[1], "float32")])
    *steps, full = (_steps(setting, case, peer) for case in told["cases"])
    best = max(found["share"] for found in [*launches, *steps])
    line = f"matrix products {peer:.3g} TFLOP/s; launches {_shares(launches, 'workers')}; "
    longer = full["step_ms"] / steps[1]["step_ms"]
    line += f"steps {_shares(steps, 'batch')}; in float32 a step takes {longer:.1f} times as long"
    figures = {"device": name, "matrix_tflop_s": peer, "launches": launches, "steps": [*steps, full], "goal": GOAL}
    return Result((best >= GOAL and longer > 1) or not setting.is_gpu, line, figures)


def _launch(setting: Setting, workers: int, peer: float) -> dict[str, Any]:
    """A few short trials of the article's study; each worker's first one compiles and does not count."""
    case = _case(setting, workers)
    asked = argparse.Namespace(devices=setting.device, widths=widths(setting))
    data_dir = str(setting.data_dir) if setting.data_dir else None
    launch_s, trial_s, score = gpu.run(Command("gpu", data_dir), case, asked)
    flop = gpu.flop_an_image(asked.widths, DEPTH) * gpu.TRAINING_IMAGES * case.epochs
    tflop_s = workers * flop / trial_s / 1e12
    found = {"workers": workers, "trials": case.trials, "epochs": case.epochs, "launch_s": launch_s, "trial_s": trial_s}
    return found | {"macro_f1": score, "tflop_s": tflop_s, "share": tflop_s / peer}


def _case(setting: Setting, workers: int) -> gpu.Case:
    return gpu.Case(*((1, 1) if setting.quick else (3 * workers, 10)), workers)


def planned(setting: Setting) -> Result:
    """What `plan` says of the launch of `rate` with the most workers: seconds, and the GPU's memory and power."""
    case = _case(setting, 1 if setting.quick else 3)
    command = [sys.executable, "-P", "-m", "affinity_search", "plan", "cifar10-article", "--json"]
    command += gpu.options(case, setting.device, widths(setting))
    command += ["--data-dir", str(setting.data_dir)] if setting.data_dir else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, file=sys.stderr)
    if done.returncode:
        sys.exit(f"error: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    found = json.loads(done.stdout)
    line = f"a launch with {case.workers} workers would take {found['seconds']:.0f} s; each needs at most "
    line += f"{found['memory_mib']:.0f} MiB, {found['free_mib']} are free; "
    line += "power is not told" if found["watts"] is None else f"{found['watts']:.0f} W"
    return Result(found["watts"] is not None or not setting.is_gpu, line, found)


def _steps(setting: Setting, case: dict[str, Any], peer: float) -> dict[str, Any]:
    tflop_s = gpu.flop_an_image(widths(setting), DEPTH) * case["images"] / min(case["steps_s"]) / 1e12
    return _times(case) | {"tflop_s": tflop_s, "share": tflop_s / peer}


def _times(case: dict[str, Any]) -> dict[str, Any]:
    steps = case["images"] // case["batch"]
    return {
        "batch": case["batch"],
        "precision": case["precision"],
        "step_ms": 1e3 * min(case["steps_s"]) / steps,
        "epoch_s": statistics.median(case["epoch_s"]),
        "steps_s": statistics.median(case["steps_s"]),
        "first_epoch_s": case["first_epoch_s"],
    }


def _shares(found: Sequence[dict[str, Any]], key: str) -> str:
    return ", ".join(f"{one['share']:.1%} with {key} {one[key]}" for one in found)


def asked_of(setting: Setting, cases: Sequence[tuple[int, str]], operations: str = "deterministic") -> Asked:
    """The article's network on CIFAR-10, with augmentation; where it is only tried out, a small one on the digits."""
    sizes = [f"network.widths={json.dumps(widths(setting))}", f"network.depth={DEPTH}", "training.epochs=4"]
    data_dir = str(setting.data_dir) if setting.data_dir else None
    return Asked(setting.slot.device, setting.study, sizes, list(cases), data_dir, operations)


def probed(setting: Setting, cases: Sequence[tuple[int, str]], operations: str = "deterministic") -> dict[str, Any]:
    """What a new process that trains them tells. Ends the part with one line if it fails."""
    asked = json.dumps(asdict(asked_of(setting, cases, operations)))
    command = [sys.executable, "-m", "benchmarks.gpu_check.probe", asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=setting.environment)
    print(done.stderr[-3000:], file=sys.stderr)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        sys.exit(f"error: {operations}: {said[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def determinism(setting: Setting) -> Result:
    """Two processes, the second ones beside each other: equal scores and weights, and an epoch's seconds in the first.

    Only the program's own setting must repeat itself; the others show what that costs.
    """
    from affinity_search.search import devices

    kinds = list(OPERATIONS) if devices.backend() == "jax" else ["deterministic"]
    case = [(64, "float32")] if setting.quick else [(BATCH, "mixed_bfloat16")]
    first = {kind: probed(setting, case, kind)["cases"][0] for kind in kinds}
    second = _at_once(setting, case, kinds)
    same = {kind: _outcome(first[kind]) == _outcome(second[kind]) for kind in kinds}
    figures = {kind: _times(first[kind]) | _outcome(first[kind]) | {"equal": same[kind]} for kind in kinds}
    told = [f"{kind} {'equal' if same[kind] else 'DIFFERENT'}, {figures[kind]['epoch_s']:.3g} s" for kind in kinds]
    return Result(same["deterministic"], "an epoch: " + "; ".join(told), figures)


def _outcome(case: dict[str, Any]) -> dict[str, Any]:
    return {key: case[key] for key in ("scores", "weights")}


def _at_once(setting: Setting, case: Sequence[tuple[int, str]], kinds: Sequence[str]) -> dict[str, Any]:
    """One process for each kind; those that fail are missing, and the part ends with the look-up."""
    found: dict[str, Any] = {}

    def run(kind: str) -> None:
        found[kind] = probed(setting, case, kind)["cases"][0]

    threads = [threading.Thread(target=run, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
