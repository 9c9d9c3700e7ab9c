"""What tuning the affinity loss is worth: MNIST, n = 10, 6 epochs, protocol holdout, test macro F1 over 5 seeds.

    make mnist-table DATA=DIR

Three studies through the real command: softmax; the affinity loss at the article's fixed settings (meant for 100
epochs); the affinity loss at what a search of 30 trials finds. Each is retrained with 5 seeds that no search used, the
same five for all, and scored on the test set once a seed. Softmax and the fixed settings have one trial, which only
makes them known to `evaluate`.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

from commands import Command, machine

EPOCHS = 6
SEEDS = 5
SMALL = ["--set", f"training.epochs={EPOCHS}", "--set", "data.minority=10"]
FIXED = ["--set", "space.lambda=0.75", "--set", "space.sigma=10", "--set", "space.n_centers=1"]
STUDIES = {
    "softmax": ["--trials", "1", "--set", "network.head=softmax", "--set", "space=none"],
    "affinity, article's fixed settings": ["--trials", "1", *FIXED],
    "affinity, found by 30 trials": ["--trials", "30", "--workers", "2"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    command = Command("mnist-table", parser.parse_args().data_dir)
    *baselines, searched = STUDIES.items()
    # On two cores two processes of one thread each do more than one of two: the baselines run side by side.
    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(lambda study: row(command, *study), baselines))
    rows.append(row(command, *searched))
    print("\n| | λ | σ | m | mean | least | greatest | validation |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    print(f"\n{machine()}")


def row(command: Command, label: str, options: list[str]) -> str:
    """Search, evaluate, and one line of the table."""
    name = label.split(" by")[0].replace(",", "").replace("'", "").replace(" ", "-")
    started = time.monotonic()
    command.launch("mnist", "--name", name, *SMALL, *options)
    searched = time.monotonic()
    test = command.evaluate(name, SEEDS, "--workers", "1")
    print(f"{label}: search {searched - started:.0f} s, evaluation {time.monotonic() - searched:.0f} s", flush=True)
    best = command.export(name)
    params = best["params"] or dict.fromkeys(("lambda", "sigma", "n_centers"))
    shown = ["" if value is None else f"{value:.3g}" for value in params.values()]
    scores = [f"{test[f'macro_f1_{which}']:.4f}" for which in ("mean", "least", "greatest")]
    return "| " + " | ".join([label, *shown, *scores, f"{best['macro_f1']:.4f}"]) + " |"


if __name__ == "__main__":
    main()
