"""Seconds and memory for a large folder of images: 50,000 of 64×64 pixels in 40 classes, the largest with 100 times as
many as the smallest.

    make own-images
    python -m benchmarks.own_images --images 5000 --side 32

It makes the images (noise over a colour of the class), runs the real commands on them, and prints a table. They lie
in a temporary folder, and so does the cache.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.commands import machine

CLASSES, FACTOR = 40, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--side", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        total = make(root / "images", options.images, options.side)
        print(f"{total} images of {options.side}×{options.side} pixels in {CLASSES} classes; {machine()}\n")
        print("| command | seconds | CPU seconds | most memory of a process |\n|---|---|---|---|", flush=True)
        measure(root, "init images --size " + str(options.side), "init: read, decoded, compared")
        measure(root, "init images -o again.toml --size " + str(options.side), "init again: from the cache")
        small = "--set network.widths=[8,16,32] --set training.epochs=1 --set training.augment=false"
        measure(root, f"launch images.toml --trials 1 --workers 1 {small}", "launch: one trial of one epoch")
        measure(root, "evaluate images --draws 1 --workers 1", "evaluate: one final run")


def make(root: Path, wanted: int, side: int) -> int:
    """Write PNG files, as many of class c as n_max · FACTOR^(−c / (CLASSES − 1)); returns how many."""
    rng = np.random.default_rng(0)
    shares = FACTOR ** (-np.arange(CLASSES) / (CLASSES - 1))
    counts = np.maximum(np.round(shares / shares.sum() * wanted), 10).astype(int)
    for number, count in enumerate(counts):
        folder = root / f"class-{number:02}"
        folder.mkdir(parents=True)
        colour = rng.integers(40, 200, 3)
        for image in range(count):
            noise = np.repeat(np.repeat(rng.integers(0, 56, (side // 4, side // 4, 3)), 4, 0), 4, 1)
            Image.fromarray((colour + noise).astype(np.uint8)).save(folder / f"{image}.png", compress_level=1)
    return int(counts.sum())


def measure(root: Path, arguments: str, what: str) -> None:
    """Run the command in `root` and print a row."""
    environment = {**os.environ, "AFFINITY_SEARCH_STORAGE": f"sqlite:///{root}/studies.db"}
    environment["AFFINITY_SEARCH_CACHE"] = str(root / "cache")
    reader, writer = os.pipe()
    started = time.perf_counter()
    # Its own process in between, whose children's peak is this command's alone.
    child = os.fork()
    if child == 0:
        done = subprocess.run(
            [sys.executable, "-m", "affinity_search", *arguments.split()],
            cwd=root, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        told = f"{used.ru_maxrss} {used.ru_utime + used.ru_stime} {done.returncode}\n{done.stderr[-2000:]}"
        os.write(writer, told.encode())
        os._exit(0)
    os.waitpid(child, 0)
    seconds = time.perf_counter() - started
    numbers, _, error = os.read(reader, 4096).decode().partition("\n")
    memory_kib, cpu_s, code = numbers.split()
    if code != "0":
        sys.exit(f"{arguments} ended with {code}:\n{error}")
    print(f"| {what} | {seconds:.0f} | {float(cpu_s):.0f} | {int(memory_kib) / 1024:.0f} MiB |", flush=True)


if __name__ == "__main__":
    main()
