"""Images per second of one training step, ours against PyTorch's, taking turns on the same machine.

    make step-bench
    python benchmarks/step --batch 128 --widths 16,32,64 8,16 24,48 40,80  # ours alone, float32 against bfloat16

The article's CIFAR-10 network with the affinity head (m = 30), batch 256, random images. Every peer is a process of its
own that waits while another trains; of ROUNDS rounds the fastest counts, as other work on the machine only slows down.
With other widths, one network for each list of them, it shows which ones bfloat16 makes slower: `_ONEDNN_BLOCK` of
search/devices.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from commands import machine  # noqa: E402 - a sibling of this folder

from affinity_search.search.devices.precision import cpu_multiplies_bfloat16  # noqa: E402

BATCH = 256
PRECISIONS = ("float32", "mixed_bfloat16")
ALWAYS = {
    "PyTorch eager, float32": ["torch_peer.py", "eager"],
    "PyTorch compiled, float32": ["torch_peer.py", "compiled"],
    "ours, float32": ["keras_peer.py", "float32"],
    "ours, float32, but as TensorFlow is without AVX-512": ["keras_peer.py", "float32", "without_onednn"],
}
WITH_BFLOAT16 = {
    "PyTorch eager, bfloat16 autocast": ["torch_peer.py", "bfloat16"],
    "PyTorch compiled, bfloat16 autocast": ["torch_peer.py", "bfloat16-compiled"],
    "ours, mixed_bfloat16": ["keras_peer.py", "mixed_bfloat16"],
}
VARIANTS = {
    "with augmentation": "augmented",
    "but without any input": "given",
    "but with XLA": "xla",
    "but with Keras' own batch norm": "unfused",
}


def peers() -> dict[str, list[str]]:
    """Name to program and arguments. A processor that emulates bfloat16 products is not asked for them."""
    fast = cpu_multiplies_bfloat16()
    precision = PRECISIONS[fast]
    variants = {f"ours, {precision}, {name}": ["keras_peer.py", precision, word] for name, word in VARIANTS.items()}
    return ALWAYS | (WITH_BFLOAT16 if fast else {}) | variants


class Peer:
    """A process that trains when it is asked to."""

    def __init__(self, program: str, kind: str, *more: str, asked: argparse.Namespace) -> None:
        numbers = map(str, (asked.batch, asked.steps, asked.threads))
        command = [sys.executable, str(HERE / program), kind, *numbers, *more]
        found = os.pathsep.join([str(HERE.parent.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        environment = os.environ | {"PYTHONPATH": found}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def round_s(self) -> float:
        """Seconds of one round, by the clock."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            assert self._process.stderr is not None
            raise RuntimeError(self._process.stderr.read()[-2000:])
        return float(answer.split()[0])

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--widths", nargs="+", metavar="W,W,…", help="ours alone, with these widths, in each precision")
    asked = parser.parse_args()
    if asked.widths:
        compare_precisions(asked)
        versions = machine()
    else:
        compare_peers(asked)
        versions = f"{machine()}, torch {version('torch')}"
    print(f"\n{versions}; {asked.threads} threads, batch {asked.batch}, best of {asked.rounds} rounds.")


def measure(what: dict[str, list[str]], asked: argparse.Namespace) -> dict[str, float]:
    """Images per second of each, the best of its rounds."""
    started: dict[str, Peer] = {}
    try:
        for (
            name,
            arguments,
        ) in what.items():  # one warms up after the other: ten at once took all the memory's bandwidth
            print(f"warming up: {name}", file=sys.stderr, flush=True)
            started[name] = Peer(*arguments, asked=asked)
            started[name].round_s()
        rounds = [{name: peer.round_s() for name, peer in started.items()} for _ in range(asked.rounds)]
    finally:
        for peer in started.values():
            peer.end()
    return {name: asked.steps * asked.batch / min(taken[name] for taken in rounds) for name in started}


def compare_peers(asked: argparse.Namespace) -> None:
    rates = measure(peers(), asked)
    best = max(rate for name, rate in rates.items() if name.startswith("PyTorch"))
    print("| step | images per second | against PyTorch's best |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.0f} | {rate / best:.2f} |")


def compare_precisions(asked: argparse.Namespace) -> None:
    print("| widths | images per second, float32 | bfloat16 | ratio |\n|---|---|---|---|")
    for widths in asked.widths:
        both = {precision: ["keras_peer.py", precision, f"widths={widths}"] for precision in PRECISIONS}
        whole, half = measure(both, asked).values()
        print(f"| {widths.replace(',', ', ')} | {whole:.0f} | {half:.0f} | {half / whole:.2f} |", flush=True)


if __name__ == "__main__":
    main()
