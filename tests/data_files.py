"""Data sets as small files of the published formats."""

import pickle

import numpy as np

from affinity_search.studies.data import SOURCES


def write_mnist(folder, n=40, **changes):
    rng = np.random.default_rng(0)
    arrays = {}
    for part in ("train", "test"):
        arrays[f"x_{part}"] = rng.integers(0, 256, (n, 28, 28), np.uint8)
        arrays[f"y_{part}"] = np.arange(n, dtype=np.uint8) % 10
    np.savez(folder / "mnist.npz", **{**arrays, **changes})
    return {**arrays, **changes}


def write_cifar(folder, names=("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"), n=20):
    batches = folder / str(SOURCES["cifar10"].holds)
    batches.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for name in names:
        rows = rng.integers(0, 256, (n, 3072), np.uint8)
        (batches / name).write_bytes(pickle.dumps({b"data": rows, b"labels": (np.arange(n) % 10).tolist()}))
    return batches
