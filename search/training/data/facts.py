"""What training must know of a data set, whoever declares it."""

from __future__ import annotations

from typing import Protocol


class OwnFacts(Protocol):
    """How people's own data are read and divided."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width in pixels that images are resized to; None: as they are."""

    @property
    def group(self) -> str | None:
        """A pattern over file names: images with an equal match stay in one part."""

    @property
    def test(self) -> float | None:
        """The share that is split off for the test; None where the data bring a test part."""


class DatasetFacts(Protocol):
    """What does not vary within a set. A study's declaration of the set has all of it; so may any other object."""

    @property
    def name(self) -> str:
        """By which the reader is found."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: height and width in pixels, channels. Of a vector: its length."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the labels."""

    @property
    def n_classes(self) -> int:
        """Labels are 0 to `n_classes` − 1."""

    @property
    def train(self) -> tuple[int, ...]:
        """Training images of each class in the whole set, before a profile leaves some out."""

    @property
    def train_per_test(self) -> int:
        """A small class has so many times as many training images as the study's `minority` says."""

    @property
    def profile(self) -> str:
        """What makes the set imbalanced."""

    @property
    def small(self) -> tuple[bool, ...] | None:
        """Of each class, whether the profile `step` makes it small; None: the even ones are."""

    @property
    def imbalance_factor(self) -> float | None:
        """Images of the largest class for one of the smallest, of the profile `exponential`."""

    @property
    def own(self) -> OwnFacts | None:
        """Of people's own data: how they are read and divided; None for a published set."""

    @property
    def shift_px(self) -> int:
        """The augmentation shifts images by so many pixels at most."""

    @property
    def flip(self) -> bool:
        """Whether the augmentation mirrors images."""

    @property
    def holds(self) -> str | None:
        """The file or folder that a data folder holds; None for a set that comes with a package."""
