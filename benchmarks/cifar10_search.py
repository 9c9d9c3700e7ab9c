"""A real CIFAR-10 search sized for two cores: n = 200, a network of a sixteenth of the cost, 8 trials of 4 epochs.

make cifar10-search DATA=DIR
"""

from __future__ import annotations

import argparse
import time

from commands import Command, machine

STUDY = "cifar10-small"
OPTIONS = ["--trials", "8", "--workers", "2", "--set", "network.widths=[16,32,64]"]
OPTIONS += ["--set", "training.epochs=4", "--set", "training.batch=128"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    command = Command("cifar10-search", parser.parse_args().data_dir)
    started = time.monotonic()
    command.launch("cifar10", "--name", STUDY, *OPTIONS)
    print(f"search: {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    test = command.evaluate(STUDY, 1)
    best = command.export(STUDY)
    print(f"best: {best['params']}, macro F1 {best['macro_f1']:.4f} on validation images")
    print(f"test macro F1 {test['macro_f1_mean']:.4f}, one seed; all {(time.monotonic() - started) / 60:.1f} minutes")
    print(machine())


if __name__ == "__main__":
    main()
