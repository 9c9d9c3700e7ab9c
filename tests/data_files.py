"""Data sets as small files of the published formats."""

import pickle

import numpy as np

from affinity_search.search.training.data.published import cifar10, cifar100
from affinity_search.studies.data import SOURCES


def write_mnist(folder, n=40, **changes):
    rng = np.random.default_rng(0)
    arrays = {}
    for part in ("train", "test"):
        arrays[f"x_{part}"] = rng.integers(0, 256, (n, 28, 28), np.uint8)
        arrays[f"y_{part}"] = np.arange(n, dtype=np.uint8) % 10
    np.savez(folder / "mnist.npz", **{**arrays, **changes})
    return {**arrays, **changes}


CIFAR = {"cifar10": cifar10.BATCHES, "cifar100": cifar100.BATCHES}


def write_cifar(folder, names=(), n=20, of="cifar10"):
    """Batches of that set, those of the training images if no names are given."""
    batches = folder / str(SOURCES[of].holds)
    batches.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for name in names or CIFAR[of].files["train"]:
        rows = rng.integers(0, 256, (n, 3072), np.uint8)
        labels = (np.arange(n) % SOURCES[of].n_classes).tolist()
        (batches / name).write_bytes(pickle.dumps({b"data": rows, CIFAR[of].labels: labels, b"coarse_labels": [0] * n}))
    return batches
