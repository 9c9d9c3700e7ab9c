"""CIFAR-100: a hundred classes of photographs, those that its files call fine; one batch a part."""

from affinity_search.search.training.data.published.cifar import Batches

BATCHES = Batches(
    "CIFAR-100",
    "cifar100",
    labels=b"fine_labels",
    files={"train": ("train",), "test": ("test",)},
    keras_folder="cifar-100-python-target",
)
