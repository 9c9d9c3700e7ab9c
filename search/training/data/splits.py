"""A data set, made imbalanced and divided as the article does it.

Training and test images are loaded by separate functions, so that a search never opens the test set.
A draw is a fresh choice of the small classes' training images and of the validation images; draw 0 is the search's own.
A study's `minority` counts test images per small class, and training keeps k times as many
(`DatasetFacts.train_per_test`). Which classes are the small ones is the profile's to say.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from affinity_search.search.training.data import READERS
from affinity_search.search.training.data.dividing import Fold, division_mistake, folds_mistake, held_out
from affinity_search.search.training.data.facts import DatasetFacts
from affinity_search.search.training.data.profiles import PROFILES, Imbalance, Wish
from affinity_search.search.training.data.readers import Part
from affinity_search.search.training.errors import DataError, listed

__all__ = ["Contents", "DatasetFacts", "Fold", "Part", "Split"]

Protocol = Literal["holdout", "article"]
COUNTS = 20  # classes whose number of images a line names


@dataclass(frozen=True)
class Split:
    """Images with their labels: `images` uint8 (N, H, W, channels), or float32 vectors (N, D); `labels` int32 (N,).

    `minority` says of each class whether it is a small one; empty until a profile has decided it. Of people's own data
    `groups` (N,) says which images belong together, and `validation` (N,) which ones they gave for validation.
    """

    images: NDArray[Any]
    labels: NDArray[np.int32]
    minority: tuple[bool, ...] = ()
    groups: NDArray[np.int32] | None = None
    validation: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, n_classes: int) -> tuple[int, ...]:
        """How many images each class has."""
        return tuple(int(count) for count in np.bincount(self.labels, minlength=n_classes))

    def take(self, chosen: NDArray[Any]) -> "Split":
        """The images at `chosen`, an index or boolean array."""
        groups = None if self.groups is None else self.groups[chosen]
        validation = None if self.validation is None else self.validation[chosen]
        return Split(self.images[chosen], self.labels[chosen], self.minority, groups, validation)


def joined(first: Split, second: Split) -> Split:
    """The images of both, one after the other; who belongs together is no longer told."""
    images, labels = (
        np.concatenate([getattr(each, name) for each in (first, second)]) for name in ("images", "labels")
    )
    return Split(images, labels, first.minority)


Seen = Callable[[Part, Split], None]  # told of each part as it is read, before anything is left out of it


@dataclass(frozen=True)
class Contents:
    """What a part of a data set is known by: `digest` is SHA-256 (hex) over its images and labels."""

    digest: str
    shape: tuple[int, ...]  # of one image
    counts: tuple[int, ...]  # images by class

    def __str__(self) -> str:
        size = f"{self.shape[0]} numbers" if len(self.shape) == 1 else "×".join(map(str, self.shape))
        counts = listed(self.counts, most=COUNTS)
        return f"{sum(self.counts)} of {size}, by class {counts}, SHA-256 {self.digest[:12]}…"

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
        if len(self.counts) != len(known.counts):
            return f"{len(self.counts)} classes instead of {len(known.counts)}"
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
    if facts.own is not None:
        from affinity_search.search.training.data.own_parts import own_part  # late: it brings image libraries

        return Split(*own_part(facts, data_dir, part))
    if facts.name not in READERS:
        raise DataError(f"There is no reader for the data set {facts.name!r}; there are {', '.join(READERS)}.")
    if facts.holds is not None and data_dir is not None and not data_dir.is_dir():
        raise DataError(f"The data folder {data_dir} does not exist; check --data-dir.")
    images, labels = READERS[facts.name].read(facts, data_dir, part)
    return Split(images, labels)


def imbalance_of(facts: DatasetFacts, minority: int | None, counts: Sequence[int] | None = None) -> Imbalance:
    """What the set's profile makes of training images, by default all of the set, for a study with this `minority`."""
    return _made(facts, counts or facts.train, None if minority is None else minority * facts.train_per_test)


def _made(facts: DatasetFacts, counts: Sequence[int], few: int | None) -> Imbalance:
    return PROFILES[facts.profile](counts, Wish(few, facts.small, facts.imbalance_factor))


def imbalance(split: Split, few: int | None, facts: DatasetFacts, draw: int = 0) -> Split:
    """Keep as many images of each class as the profile says: the first ones, or for a later draw any.

    `few` are those of a small class, where the profile is told. Raises DataError if `few` is not positive, or a small
    class has fewer.
    """
    counts = split.counts(facts.n_classes)
    made = _made(facts, counts, few)
    if (few is not None and few < 1) or any(kept > count for kept, count in zip(made.kept, counts, strict=True)):
        small = [f"{label}: {counts[label]}" for label, is_small in enumerate(made.minority) if is_small]
        found = listed(small, most=COUNTS)
        raise DataError(
            f"{few} images per minority class are asked for, but these classes have {found}; "
            "change the study's `minority`."
        )
    keep = np.ones(len(split), bool)
    for label, kept in enumerate(made.kept):
        mine = np.flatnonzero(split.labels == label)
        if draw:
            mine = np.random.default_rng((draw, label)).permutation(mine)
        keep[mine[kept:]] = False
    return replace(split if keep.all() else split.take(keep), minority=made.minority)


def holdout(split: Split, held: float | Fold, seed: int, classes: Sequence[str] = ()) -> tuple[Split, Split]:
    """Divide into (rest, held out) with every class divided alike; the same `seed` gives the same division.

    `held` is the share that is held out, or which fold.

    Images of a group stay together. Raises DataError if a class would be missing on either side.
    """
    chosen = held_out(split.labels, split.groups, held, seed, classes)
    return split.take(~chosen), split.take(chosen)


def holdout_mistake(facts: DatasetFacts, minority: int | None, held: float | Fold | None) -> str | None:
    """Why a study of the set as it is published cannot be divided for validation; None if it can, or need not be."""
    counts = list(map(min, facts.train, imbalance_of(facts, minority).kept))
    if isinstance(held, Fold):
        return folds_mistake(counts, held.of)
    return None if held is None else division_mistake(counts, held)


def search_splits(
    facts: DatasetFacts,
    minority: int | None,
    validation: float | Fold,
    protocol: Protocol,
    seed: int,
    data_dir: Path | None,
    *,
    draw: int = 0,
    repeat: int = 0,
    seen: Seen | None = None,
    whole: Split | None = None,
) -> tuple[Split, Split]:
    """The (training, evaluation) images of a search, or of another draw: as many of each, but others.

    "holdout" takes the share `validation`, or a fold, out of the imbalanced training images and leaves the test set
    unopened. Each `repeat` takes another share; 0 is the first.
    Where people's own data bring validation images, these evaluate, and draws differ in the rest alone.
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
    given: Split | None = None
    if (chosen := whole.validation) is not None:
        whole, given = whole.take(~chosen), whole.take(chosen)
    train = imbalance(whole, None if minority is None else minority * facts.train_per_test, facts, draw)
    if protocol == "article":
        return train, test_split(facts, minority, data_dir, seen=seen)
    if given is not None:
        return train, replace(given, minority=train.minority)
    return holdout(train, validation, _seed_of(seed, draw, repeat), facts.classes)


def _seed_of(seed: int, draw: int, repeat: int) -> int:
    """The study's own for the search's first division."""
    if draw == repeat == 0:
        return seed
    entropy = (seed, draw, repeat) if repeat else (seed, draw)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def test_split(
    facts: DatasetFacts,
    minority: int | None,
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
        return replace(test, minority=imbalance_of(facts, minority).minority)
    return imbalance(test, minority, facts)


def test_shares(counts: Sequence[int], minority: int | None, facts: DatasetFacts) -> tuple[float, ...]:
    """How many of these test images of each class, (C,), the study imagines.

    Of a small class `minority`, where this counts test images; else the share of the class that training keeps.
    """
    if facts.profile == "step" and facts.own is None:
        return tuple(map(min, _made(facts, counts, minority).kept, counts))
    kept = imbalance_of(facts, minority).kept
    return tuple(n * min(k, t) / t for n, k, t in zip(counts, kept, facts.train, strict=True))
