"""A data set, made imbalanced and divided as the article does it.

Training and test images are loaded by separate functions, so that a search never opens the test set.
A draw is a fresh choice of the small classes' training images and of the validation images; draw 0 is the search's own.
A study's `minority` counts test images per small class, and training keeps k times as many
(`DatasetFacts.train_per_test`). Which classes are the small ones is the profile's to say.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from affinity_search.search.training.data import READERS
from affinity_search.search.training.data.facts import DatasetFacts
from affinity_search.search.training.data.profiles import PROFILES, Imbalance
from affinity_search.search.training.data.readers import Part
from affinity_search.search.training.errors import DataError

__all__ = ["Contents", "DatasetFacts", "Part", "Split"]

Protocol = Literal["holdout", "article"]


@dataclass(frozen=True)
class Split:
    """Images with their labels: `images` uint8 (N, H, W, channels), `labels` int32 (N,).

    `minority` says of each class whether it was made a small one; empty until a profile has decided it.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    minority: tuple[bool, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, n_classes: int) -> tuple[int, ...]:
        """How many images each class has."""
        return tuple(int(count) for count in np.bincount(self.labels, minlength=n_classes))

    def take(self, chosen: NDArray[Any]) -> "Split":
        """The images at `chosen`, an index or boolean array."""
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])


Seen = Callable[[Part, Split], None]  # told of each part as it is read, before anything is left out of it


@dataclass(frozen=True)
class Contents:
    """What a part of a data set is known by: `digest` is SHA-256 (hex) over its images and labels."""

    digest: str
    shape: tuple[int, ...]  # of one image
    counts: tuple[int, ...]  # images by class

    def __str__(self) -> str:
        size = "×".join(map(str, self.shape))
        return f"{sum(self.counts)} of {size}, by class {', '.join(map(str, self.counts))}, SHA-256 {self.digest[:12]}…"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote, also after JSON."""
        return cls(plain["digest"], tuple(plain["shape"]), tuple(plain["counts"]))

    def difference_from(self, known: Self) -> str:
        """What differs, in words; both differ."""
        if self.shape != known.shape:
            return f"{'×'.join(map(str, self.shape))} pixels instead of {'×'.join(map(str, known.shape))}"
        pairs = enumerate(zip(self.counts, known.counts, strict=True))
        other = [
            f"{here} images of class {label} instead of {there}" for label, (here, there) in pairs if here != there
        ]
        if other:
            return ", ".join(other[:3]) + (f" and {len(other) - 3} classes more" if len(other) > 3 else "")
        return f"as many of each class, but not the same (SHA-256 {self.digest[:12]}… instead of {known.digest[:12]}…)"


def contents_of(split: Split, n_classes: int) -> Contents:
    """Independent of the files that it came in: a copy packed otherwise is the same data."""
    digest = hashlib.sha256(np.ascontiguousarray(split.images).data)
    digest.update(np.ascontiguousarray(split.labels, "<i4").data)
    return Contents(digest.hexdigest(), split.images.shape[1:], split.counts(n_classes))


def load_train(facts: DatasetFacts, data_dir: Path | None) -> Split:
    """All training images of a set, the test images unopened; from `data_dir`, or where the set comes from by itself.

    Raises DataError if there is no reader for the set, or the set is absent or unreadable.
    """
    return _load(facts, data_dir, "train")


def load_test(facts: DatasetFacts, data_dir: Path | None) -> Split:
    """All test images of a set; otherwise as `load_train`."""
    return _load(facts, data_dir, "test")


def _load(facts: DatasetFacts, data_dir: Path | None, part: Part) -> Split:
    if facts.name not in READERS:
        raise DataError(f"There is no reader for the data set {facts.name!r}; there are {', '.join(READERS)}.")
    if facts.holds is not None and data_dir is not None and not data_dir.is_dir():
        raise DataError(f"The data folder {data_dir} does not exist; check --data-dir.")
    return Split(*READERS[facts.name].read(facts, data_dir, part))


def imbalance_of(facts: DatasetFacts, per_minority_class: int) -> Imbalance:
    """What the set's profile makes of its training images as they are published."""
    return PROFILES[facts.profile](facts.train, per_minority_class)


def imbalance(split: Split, per_minority_class: int, facts: DatasetFacts, draw: int = 0) -> Split:
    """Keep as many images of each class as the profile says: the first ones, or for a later draw any.

    Raises DataError if `per_minority_class` is not positive or a small class has fewer.
    """
    counts = split.counts(facts.n_classes)
    made = PROFILES[facts.profile](counts, per_minority_class)
    if per_minority_class < 1 or any(kept > count for kept, count in zip(made.kept, counts, strict=True)):
        found = ", ".join(f"{label}: {counts[label]}" for label, small in enumerate(made.minority) if small)
        raise DataError(
            f"{per_minority_class} images per minority class are asked for, but these classes have {found}; "
            "change the study's `minority`."
        )
    keep = np.ones(len(split), bool)
    for label, kept in enumerate(made.kept):
        mine = np.flatnonzero(split.labels == label)
        if draw:
            mine = np.random.default_rng((draw, label)).permutation(mine)
        keep[mine[kept:]] = False
    return replace(split.take(keep), minority=made.minority)


def holdout(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Divide into (rest, held out) with every class divided alike; the same `seed` gives the same division.

    Raises DataError if a class would be missing on either side.
    """
    from sklearn.model_selection import train_test_split  # late: who only counts does not wait for it

    mistake = _division_mistake([count for count in split.counts(0) if count], fraction)
    if mistake is not None:
        raise DataError(mistake)
    rest, held = train_test_split(np.arange(len(split)), test_size=fraction, random_state=seed, stratify=split.labels)
    return split.take(np.sort(rest)), split.take(np.sort(held))


def holdout_mistake(facts: DatasetFacts, minority: int, fraction: float | None) -> str | None:
    """Why a study of the set as it is published cannot be divided for validation; None if it can, or need not be."""
    made = imbalance_of(facts, minority * facts.train_per_test)
    counts = list(map(min, facts.train, made.kept))
    return None if fraction is None else _division_mistake(counts, fraction)


def _division_mistake(counts: Sequence[int], fraction: float) -> str | None:
    """Why a share cannot be held out of so many images of each class, so that each class has some on both sides."""
    total = sum(counts)
    held = math.ceil(fraction * total)
    # As scikit-learn divides: whole images first, the rest to the largest remainders.
    shares = (total - held) * np.array(counts) / max(total, 1)
    kept = np.floor(shares).astype(int)
    remainders = shares - kept
    if left := total - held - int(kept.sum()):
        kept += remainders >= np.sort(remainders)[-left]
    fewest = min(counts, default=0)
    if 0 < fraction < 1 and held >= len(counts) and (kept > 0).all() and (kept < counts).all():
        return None
    return (
        f"Holding out {fraction:g} of {total} training images takes {held}, and the smallest class has {fewest}: "
        "some class would be left without images on one side; raise data.minority or change data.validation"
    )


def search_splits(
    facts: DatasetFacts,
    minority: int,
    validation: float,
    protocol: Protocol,
    seed: int,
    data_dir: Path | None,
    *,
    draw: int = 0,
    seen: Seen | None = None,
    whole: Split | None = None,
) -> tuple[Split, Split]:
    """The (training, evaluation) images of a search, or of another draw: as many of each, but others.

    "holdout" takes the share `validation` out of the imbalanced training images and leaves the test set unopened.
    "article" trains on all of them and evaluates on the imbalanced test set, as the article does: it flatters.
    `seen` is told of each part that is read. `whole` is what `load_train` gives, where it was read before.
    Raises DataError for an unknown protocol, and as `load_train`, `imbalance` and `holdout` do.
    """
    if protocol not in ("holdout", "article"):
        raise DataError(f"There is no protocol {protocol!r}; the protocols are holdout and article.")
    if whole is None:
        whole = load_train(facts, data_dir)
        if seen is not None:
            seen("train", whole)
    train = imbalance(whole, minority * facts.train_per_test, facts, draw)
    if protocol == "article":
        return train, test_split(facts, minority, data_dir, seen=seen)
    return holdout(train, validation, seed if draw == 0 else _seed_of(seed, draw))


def _seed_of(seed: int, draw: int) -> int:
    return int(np.random.SeedSequence((seed, draw)).generate_state(1)[0])


def test_split(
    facts: DatasetFacts,
    minority: int,
    data_dir: Path | None,
    *,
    whole: bool = False,  # noqa: PT028 - no test
    seen: Seen | None = None,  # noqa: PT028 - no test
) -> Split:
    """The imbalanced test images, `minority` of each small class; `whole` keeps all, with the same classes small."""
    test = load_test(facts, data_dir)
    if seen is not None:
        seen("test", test)
    if whole:
        return replace(test, minority=PROFILES[facts.profile](test.counts(facts.n_classes), minority).minority)
    return imbalance(test, minority, facts)


def test_shares(test: Split, minority: int, facts: DatasetFacts) -> tuple[int, ...]:
    """How many test images of each class, (C,), the study imagines: of a small class `minority`, of another all."""
    counts = test.counts(facts.n_classes)
    kept = PROFILES[facts.profile](counts, minority).kept
    return tuple(map(min, kept, counts))
