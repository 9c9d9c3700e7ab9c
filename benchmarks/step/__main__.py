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

BATCH = 256
PRECISIONS = ("float32", "mixed_bfloat16")
PEERS = {
    "PyTorch eager, float32": ["torch_peer.py", "eager"],
    "PyTorch compiled, float32": ["torch_peer.py", "compiled"],
    "PyTorch eager, bfloat16 autocast": ["torch_peer.py", "bfloat16"],
    "PyTorch compiled, bfloat16 autocast": ["torch_peer.py", "bfloat16-compiled"],
    "ours, float32": ["keras_peer.py", "float32"],
    "ours, mixed_bfloat16": ["keras_peer.py", "mixed_bfloat16"],
    "ours, mixed_bfloat16, with augmentation": ["keras_peer.py", "mixed_bfloat16", "augmented"],
    "ours, mixed_bfloat16, but without any input": ["keras_peer.py", "mixed_bfloat16", "given"],
    "ours, mixed_bfloat16, but with XLA": ["keras_peer.py", "mixed_bfloat16", "xla"],
    "ours, mixed_bfloat16, but with Keras' own batch norm": ["keras_peer.py", "mixed_bfloat16", "unfused"],
}


class Peer:
    """A process that trains when it is asked to."""

    def __init__(self, program: str, kind: str, *more: str, asked: argparse.Namespace) -> None:
        numbers = map(str, (asked.batch, asked.steps, asked.threads))
        command = [sys.executable, str(HERE / program), kind, *numbers, *more]
        environment = os.environ | {"PYTHONPATH": str(HERE.parent.parent)}
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
    parser.add_argument("--steps", type=int, default=6, help="steps of a round")
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
    peers = {name: Peer(*arguments, asked=asked) for name, arguments in what.items()}
    try:
        rounds = [{name: peer.round_s() for name, peer in peers.items()} for _ in range(asked.rounds)]
    finally:
        for peer in peers.values():
            peer.end()
    return {name: asked.steps * asked.batch / min(taken[name] for taken in rounds) for name in peers}


def compare_peers(asked: argparse.Namespace) -> None:
    rates = measure(PEERS, asked)
    best = max(rate for name, rate in rates.items() if name.startswith("PyTorch"))
    print("| step | images per second | against PyTorch's best |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.0f} | {rate / best:.2f} |")


def compare_precisions(asked: argparse.Namespace) -> None:
    print("| widths | images per second, float32 | bfloat16 | ratio |\n|---|---|---|---|")
    for widths in asked.widths:
        peers = {precision: ["keras_peer.py", precision, f"widths={widths}"] for precision in PRECISIONS}
        whole, half = measure(peers, asked).values()
        print(f"| {widths.replace(',', ', ')} | {whole:.0f} | {half:.0f} | {half / whole:.2f} |", flush=True)


if __name__ == "__main__":
    main()
