"""How much the luck of the test images moves macro F1: scored on a small test set, or on all images and weighted.

    python -m benchmarks.noise   # seconds

Simulated. A classifier has a fixed chance for each (true, predicted) pair of ten classes: large classes are recognised
with 0.98, small ones with 0.80, and what is missed goes to the other classes evenly. Of each class 1000 test images are
drawn. The small test set keeps n images of every second class; the weighted score uses all images and counts row c of
the confusion matrix as n or as 1000.
"""

from __future__ import annotations

import numpy as np

from affinity_search.search.training.metrics import score

CLASSES, IMAGES, DRAWS = 10, 1000, 2000
SMALL = np.arange(CLASSES) % 2 == 0
RECALL = np.where(SMALL, 0.80, 0.98)


def main() -> None:
    print("| n | macro F1, n images of each small class | macro F1, all images, weighted | ratio | means |")
    print("|---|---|---|---|---|")
    for n in (10, 50, 200):
        few, weighted = deviations(n, DRAWS, np.random.default_rng(n))
        ratio = weighted.std(ddof=1) / few.std(ddof=1)
        deviation = [f"{100 * each.std(ddof=1):.2f}" for each in (few, weighted)]
        means = " and ".join(f"{100 * each.mean():.2f}" for each in (few, weighted))
        print(f"| {n} | {' | '.join(deviation)} | {ratio:.2f} | {means} |")
    print(f"\nstandard deviations and means in points, over {DRAWS} draws of the test images")


def deviations(n: int, draws: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Macro F1 of `draws` test sets, each scored in both ways."""
    chances = np.full((CLASSES, CLASSES), (1 - RECALL)[:, None] / (CLASSES - 1))
    np.fill_diagonal(chances, RECALL)
    labels = np.repeat(np.arange(CLASSES), IMAGES)
    shares = np.where(SMALL, n, IMAGES)
    kept = np.concatenate([label * IMAGES + np.arange(share) for label, share in enumerate(shares)])
    few, weighted = [], []
    for _ in range(draws):
        drawn = np.concatenate([random.choice(CLASSES, IMAGES, p=row) for row in chances])
        few.append(score(labels[kept], drawn[kept], CLASSES).macro_f1)
        weighted.append(score(labels, drawn, CLASSES, shares=shares.tolist()).macro_f1)
    return np.array(few), np.array(weighted)


if __name__ == "__main__":
    main()
