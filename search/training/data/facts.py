"""What training must know of a data set, whoever declares it."""

from typing import Protocol


class DatasetFacts(Protocol):
    """What does not vary within a set. A study's declaration of the set has all of it; so may any other object."""

    @property
    def name(self) -> str:
        """By which the reader is found."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: height and width in pixels, channels."""

    @property
    def n_classes(self) -> int:
        """Labels are 0 to `n_classes` − 1."""

    @property
    def train(self) -> tuple[int, ...]:
        """Training images of each class in the set as it is published."""

    @property
    def train_per_test(self) -> int:
        """How many times as many training images as test images a small class has."""

    @property
    def profile(self) -> str:
        """What makes the set imbalanced."""

    @property
    def shift_px(self) -> int:
        """The augmentation shifts images by so many pixels at most."""

    @property
    def flip(self) -> bool:
        """Whether the augmentation mirrors images."""

    @property
    def holds(self) -> str | None:
        """The file or folder that a data folder holds; None for a set that comes with a package."""
