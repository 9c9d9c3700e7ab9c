"""Which head is best on reduced MNIST and CIFAR-10, each with its own searched settings and equal places?

    make heads-table DATA=DIR                               # hours on 2 cores, minutes on a GPU
    python -m benchmarks.heads --data-dir DIR --device gpu:0 --processes 8 --out DIR
    python -m benchmarks.heads --data-dir DIR --sets mnist --heads softmax,affinity --trials 2 --draws 2  # to try it

Every head searches its recommended space (learning rate included) in the same number of places, on draw 0. Its best
settings are trained anew on later draws, which no search has seen. Two heads at the same draw are a pair.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from affinity_search.studies.heads import HEADS
from affinity_search.studies.metrics import METRICS
from benchmarks.commands import OUT, machine

BASELINE = "softmax"
SHOWN = ("macro_f1", "balanced_accuracy", "geometric_mean", "recall_many", "recall_few", "accuracy")


def main() -> None:
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.one:
        from benchmarks.heads.one import contest

        dataset, head = options.one
        chosen = {key: getattr(options, key) for key in ("draws", "device", "data_dir", "out")}
        contest(dataset, head, **chosen, overrides=[f"trials={options.trials}", *options.set])
        return
    jobs = [(dataset, head) for dataset in options.sets for head in options.heads]
    with ThreadPoolExecutor(options.processes) as pool:
        codes = list(pool.map(lambda job: _run(job, options), jobs))
    for dataset in options.sets:
        print(f"\n### {dataset}\n\n{table(dataset, options.heads, options.out)}")
    print(f"\n{machine()}; device {options.device}")
    sys.exit(max(codes))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--sets", type=lambda text: text.split(","), default=["mnist", "cifar10"])
    parser.add_argument("--heads", type=lambda text: text.split(","), default=list(HEADS))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT / "heads")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--one", nargs=2, metavar=("SET", "HEAD"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(job: tuple[str, str], options: argparse.Namespace) -> int:
    """A process of its own: a device's memory and its compiled functions go with it."""
    line = [sys.executable, "-m", "benchmarks.heads", "--one", *job]
    for key in ("data_dir", "trials", "draws", "device", "out"):
        line += [f"--{key.replace('_', '-')}", str(getattr(options, key))]
    for each in options.set:
        line += ["--set", each]
    with (options.out / f"{'-'.join(job)}.log").open("w") as log:
        code = subprocess.run(line, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    print(f"{' '.join(job)}: {'done' if code == 0 else f'exit code {code}, see its .log'}", flush=True)
    return code


def table(dataset: str, heads: list[str], out: Path) -> str:
    """Means over the draws, the paired difference to softmax with its 95 % interval (Student's t), the settings."""
    files = {head: out / f"{dataset}-{head}.json" for head in heads}
    found = {head: json.loads(file.read_text()) for head, file in files.items() if file.exists()}
    labels = [METRICS[key].label for key in SHOWN]
    columns = ["head", *labels, f"macro F1 − {BASELINE}", f"balanced accuracy − {BASELINE}", "settings"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for head, one in sorted(found.items(), key=lambda item: -_mean(item[1], "macro_f1")):
        means = " | ".join(f"{100 * _mean(one, key):.1f}" for key in SHOWN)
        differences = " | ".join(_difference(one, found.get(BASELINE), key) for key in SHOWN[:2])
        settings = ", ".join(f"{HEADS[head].symbol(key)} {value:.3g}" for key, value in one["params"].items())
        lines.append(f"| `{head}` | {means} | {differences} | {settings} |")
    return "\n".join(lines)


def _mean(one: dict[str, Any], key: str) -> float:
    return float(np.mean([scores.get(key, np.nan) for scores in one["draws"].values()]))


def _difference(one: dict[str, Any], baseline: dict[str, Any] | None, key: str) -> str:
    if baseline is None or baseline is one:
        return ""
    both = one["draws"].keys() & baseline["draws"].keys()
    differences = 100 * np.array([one["draws"][draw][key] - baseline["draws"][draw][key] for draw in both])
    if len(differences) < 2:
        return ""
    half = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences))
    mean = differences.mean()
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


if __name__ == "__main__":
    main()
