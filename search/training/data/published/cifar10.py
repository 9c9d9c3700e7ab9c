"""CIFAR-10: ten classes of photographs, the training images in five batches."""

from affinity_search.search.training.data.published.cifar import Batches

BATCHES = Batches(
    "CIFAR-10",
    "cifar10",
    labels=b"labels",
    files={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    keras_folder="cifar-10-batches-py-target",
)
