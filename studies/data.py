"""The data sets that a study may name, and the profiles that make them imbalanced. All that others know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from affinity_search.studies.errors import either

NUMERALS = tuple("0123456789")
OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# The fine classes of CIFAR-100, in the order of the alphabet and of their labels.
_FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
FINE_OBJECTS = tuple(_FINE.split())


@dataclass(frozen=True)
class OwnData:
    """How people's own data are read and divided; the same for all studies of the same images and size."""

    kind: Literal["images", "vectors"]
    size: tuple[int, int] | None = None  # height and width in pixels that images are resized to
    group: str | None = None  # a pattern over file names: images with an equal match stay in one part
    test: float | None = None  # the share that is split off for the test; None where the data bring a test part


@dataclass(frozen=True)
class SourceDefinition:
    """A data set: what does not vary within it. Its images are read by `search/training/data/published/NAME.py`.

    Of people's own data (`own`) classes, shape and counts are known once they were read: `DataSpec.found` has them.
    """

    name: str  # as a study's `data.set`
    shape: tuple[int, ...] = ()  # of one image: height and width in pixels, channels; of a vector: its length
    classes: tuple[str, ...] = ()  # names, in the order of the labels
    train: tuple[int, ...] = ()  # training images of each class, before a profile leaves some out
    train_per_test: int = 1  # k: a small class has k times as many training images as `data.minority`
    most_minority: int | None = None  # a little below the test images of the smallest class that may be made small
    shift_px: int = 0  # of the augmentation, which also mirrors images if `flip`
    flip: bool = False
    holds: str | None = None  # the file or folder that --data-dir must hold
    part_of: str | None = None  # the package that brings the images along; then there are no files of it
    profile: str = "step"
    small: tuple[bool, ...] | None = None  # which classes `step` makes small; None: the even ones
    imbalance_factor: float | None = None  # of `exponential`
    own: OwnData | None = None

    @property
    def n_classes(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class ProfileDefinition:
    """A way to make a data set imbalanced; `search/training/data/profiles.py` does it."""

    name: str  # as a study's `data.profile`
    about: str  # what it does to which classes
    needs: tuple[str, ...] = ()  # keys of [data] that it must be given
    takes: tuple[str, ...] = ()  # further ones


_SOURCES = (
    SourceDefinition(
        "digits",
        shape=(8, 8, 1),
        classes=NUMERALS,
        train=(143, 146, 142, 147, 145, 146, 145, 144, 140, 144),
        train_per_test=4,
        most_minority=30,
        shift_px=1,
        flip=False,
        part_of="scikit-learn",
    ),
    SourceDefinition(
        "mnist",
        shape=(28, 28, 1),
        classes=NUMERALS,
        train=(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        train_per_test=6,
        most_minority=900,
        shift_px=4,
        flip=False,
        holds="mnist.npz",
    ),
    SourceDefinition(
        "cifar10",
        shape=(32, 32, 3),
        classes=OBJECTS,
        train=(5000,) * 10,
        train_per_test=5,
        most_minority=1000,
        shift_px=4,
        flip=True,
        holds="cifar-10-batches-py",
    ),
    SourceDefinition(
        "cifar100",
        shape=(32, 32, 3),
        classes=FINE_OBJECTS,
        train=(500,) * 100,
        train_per_test=5,
        most_minority=100,
        shift_px=4,
        flip=True,
        holds="cifar-100-python",
    ),
    SourceDefinition("folder", profile="natural", own=OwnData("images")),
    SourceDefinition("npz", profile="natural", own=OwnData("images")),
    SourceDefinition("features", profile="natural", own=OwnData("vectors")),
)
SOURCES = {source.name: source for source in _SOURCES}
_PROFILES = (
    ProfileDefinition("natural", "every class keeps the images that it has"),
    ProfileDefinition(
        "step",
        "the classes of `small` (by default the even ones) keep few images, the others all",
        needs=("minority",),
        takes=("small",),
    ),
    ProfileDefinition(
        "exponential",
        "class by class fewer, down to 1 / `imbalance_factor` of the largest",
        needs=("imbalance_factor",),
    ),
)
PROFILES = {profile.name: profile for profile in _PROFILES}


def names() -> str:
    """The sets, as a mistake and a help text list them."""
    return either(list(SOURCES))


def most_minorities() -> str:
    """The most that `data.minority` may be for each set: `30 (digits) or 900 (mnist)`."""
    return either([f"{source.most_minority} ({source.name})" for source in published()])


def published() -> list[SourceDefinition]:
    """The sets of which everything is known before a file is opened."""
    return [source for source in SOURCES.values() if source.own is None]


def own_sets() -> list[str]:
    """The names of the kinds of own data."""
    return [source.name for source in SOURCES.values() if source.own is not None]


def from_files() -> list[SourceDefinition]:
    """The published sets that are read from files, those that Keras downloads among them."""
    return [source for source in published() if source.part_of is None]


def file_names() -> str:
    """What a data folder may hold: `mnist.npz or cifar-10-batches-py`."""
    return either([source.holds for source in from_files() if source.holds])
