"""A first look at people's own data: what is there, what is doubtful, and a study file that suits them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from affinity_search.studies.data import SOURCES, OwnData
from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.model.spec import VALIDATION
from affinity_search.studies.model.tables.data import DEFAULT_TEST
from affinity_search.studies.model.writing import value_text

if TYPE_CHECKING:
    from affinity_search.search.training.data.own import Alike, Collection, Progress, Sizes
    from affinity_search.search.training.data.own_parts import Found

FEW = 20  # images: fewer of a class leave a handful for validation and for the test
NAMED = 3  # of the things that are doubtful in one way
SIDES = (8, 16, 24, 32, 48, 64)  # larger images cost more than they tell a small network
STEPS = 1000  # of a training, about
HEADS = ("softmax", "class_balanced", "logit_adjusted", "affinity")
_PREFIX = re.compile(r"^[^-_ .]+(?=[-_ ])")
_EXTENSION = re.compile(r"\.npz$", re.IGNORECASE)


@dataclass(frozen=True)
class Look:
    """What was seen of own data."""

    path: Path
    kind: str  # as a study's `data.set`
    own: OwnData
    collection: Collection
    found: Found
    sizes: Sizes | None  # of the image files
    doubts: tuple[str, ...]  # what may spoil a result, a sentence each

    @property
    def images(self) -> int:
        """For training and validation."""
        return sum(self.found.train) + sum(self.found.validation)


def look_at(
    path: Path,
    size: tuple[int, int] | None,
    group: str | None,
    progress: Progress | None = None,
    *,
    strict: bool = False,
) -> Look:
    """Read the folder or .npz file. Without a `size` images in files get one that is near theirs.

    Image files that cannot be read are left out and listed; with `strict` they are a reason to refuse.
    Raises DataError with a line for each reason why they cannot be used.
    """
    from affinity_search.search.training.data import own as reading
    from affinity_search.search.training.data.own_parts import READERS, found_in

    sizes = None
    if _EXTENSION.search(path.name):
        kind = _kind_of(path)
    else:
        kind, sizes = "folder", reading.sizes(path)
        size = size or _near(sizes)
    own = SOURCES[kind].own
    assert own is not None
    own = replace(own, size=size, group=group, test=DEFAULT_TEST)
    collection = READERS[kind](path, reading.Wanted(size, group, strict), progress)
    found = found_in(collection, own)
    own = replace(own, test=None if found.test_given else DEFAULT_TEST)
    return Look(path, kind, own, collection, found, sizes, tuple(_doubts(collection, found, group)))


def _kind_of(path: Path) -> str:
    """Whether an .npz file holds vectors: its first array that is no label has two axes."""
    from affinity_search.search.training.data.own.npz import found_in

    inputs = found_in(path, ["images", "features"]).inputs
    return "features" if inputs and inputs[0].ndim == 2 else "npz"


def _near(sizes: Sizes) -> tuple[int, int]:
    """The largest of SIDES that is not above the median side; shapes that are far from a square keep it roughly."""
    heights, widths = ([getattr(each, side)[1] for each in sizes.classes] for side in ("height", "width"))
    height, width = (sorted(each)[len(each) // 2] for each in (heights, widths))
    side = max((each for each in SIDES if each <= min(height, width)), default=SIDES[0])
    ratio = max(height, width) / max(min(height, width), 1)
    longer = side if ratio < 1.5 else min(int(side * ratio) // 8 * 8, 2 * SIDES[-1])
    return (side, longer) if width >= height else (longer, side)


def _doubts(collection: Collection, found: Found, group: str | None) -> Iterator[str]:
    from affinity_search.search.training.data.own import duplicates
    from affinity_search.search.training.errors import listed
    from affinity_search.search.training.metrics import LARGEST_BALANCED

    small = [f"{name} ({n})" for name, n in zip(found.classes, found.train, strict=True) if n < FEW]
    if small:
        named = listed(small, most=NAMED)
        yield f"fewer than {FEW} images to train on: {named}; scores of such a class move in large steps"
    if max(found.train) < LARGEST_BALANCED * min(found.train):
        yield "the classes are of nearly equal size, and losses for imbalanced classes may change little"
    if collection.skipped:
        first = [f"{name} ({reason})" for name, reason in collection.skipped]
        yield f"files that are left out, as they cannot be read: {listed(first, most=NAMED)}"
    alike = duplicates(collection)
    for kind, pairs in (("equal", alike.equal), ("nearly equal", alike.near)):
        across = [each for each in pairs if each.across_parts]
        mixed = [each for each in pairs if each.across_classes and not each.across_parts]
        if across:
            yield f"{kind} images in different parts, which makes scores too good: {listed(_pairs(across), most=NAMED)}"
        if mixed:
            yield f"{kind} images in different classes: {listed(_pairs(mixed), most=NAMED)}"
    if (groups := collection.groups) is not None:
        apart = [set(groups[collection.parts == part].tolist()) for part in range(3)]
        both = len((apart[0] & apart[2]) | (apart[1] & apart[2]) | (apart[0] & apart[1]))
        if both:
            yield f"{both} groups have images in several of the parts that you gave, which makes scores too good"
    if group is None and collection.groups is None and (shared := _shared_beginnings(collection.names)):
        yield shared


def _pairs(pairs: list[Alike]) -> list[str]:
    return [" = ".join(each.names) for each in pairs]


def _shared_beginnings(names: tuple[str, ...]) -> str | None:
    """Whether many file names begin alike, as those of one patient or photograph do."""
    found = [match[0] for name in names if (match := _PREFIX.search(name.rsplit("/", 1)[-1]))]
    kinds = Counter(found)
    if len(found) < len(names) or not 2 <= len(kinds) <= 0.7 * len(names):
        return None
    begin = next(iter(kinds))
    return (
        f"file names have {len(kinds)} beginnings such as {begin!r}; if images with one beginning belong together (a "
        "patient, a photograph), keep them in one part: --group '^[^-_ ]+'"
    )


def study_text(look: Look, folder: Path, heads: tuple[str, ...] = HEADS) -> str:
    """A commented study file for these data. Their path is relative where they lie below `folder`, the file's own."""
    found, images = look.found, look.images
    batch = 32 if images < 1_000 else 64 if images < 10_000 else 128
    epochs = min(60, max(5, round(STEPS * batch / images)))
    vectors = look.kind == "features"
    counts = ", ".join(f"{name} {n}" for name, n in zip(found.classes, found.train, strict=True))
    counts = counts if len(counts) < 90 else f"{len(found.classes)} classes"
    widths = "[128]" if vectors else "[16, 32, 64]" if images < 20_000 else "[32, 64, 128]"
    body = "\n".join(_data_lines(look, folder))
    kind = 'kind = "mlp" # dense layers: what an embedding needs before the head\n' if vectors else ""
    return f"""# {images} {"vectors" if vectors else "images"} to train on: {counts}.
# Compare losses: affinity-search compare THIS_FILE
# Search one loss: affinity-search launch THIS_FILE --set network.head=affinity

trials = 20 # of each loss, to find its settings
draws = 10 # final runs of each loss with its best settings
metric = "macro_f1" # the mean over the classes, however few images one has; or balanced_accuracy, worst_recall, ...

[data]
{body}
# profile = "natural" # the images as they are; "step" or "exponential" take some away, to try other imbalances

[network]
{kind}widths = {widths}

[training]
epochs = {epochs}
batch = {batch}
augment = {"false" if vectors else "true # shifts, and mirrors where data.flip says so"}

[pruner]
kind = "none" # equal epochs for every trial; "median" stops those without prospects

# What is compared: heads with their recommended ranges.
{chr(10).join(f"[contestants.{head}]" for head in heads)}
"""


def _data_lines(look: Look, folder: Path) -> Iterator[str]:
    """The keys of the table [data]."""
    place, start = look.path.resolve(), folder.resolve()
    path = str(place.relative_to(start) if place.is_relative_to(start) else place)
    yield f"set = {value_text(look.kind)}"
    yield f"path = {value_text(path)}"
    if look.own.size:
        yield f"size = {value_text(list(look.own.size))} # height and width in pixels"
    if look.own.group:
        yield f"group = {value_text(look.own.group)} # equal matches stay in one part"
    if look.kind != "features":
        yield "# flip = true # where an image and its mirror image mean the same"
    if not look.found.validation:
        yield f"validation = {VALIDATION} # share of the training images that scores the epochs"
    if not look.found.test_given:
        yield f"test = {DEFAULT_TEST} # share that is kept for the final scores alone"


def write_new(text: str, file: Path) -> None:
    """Write the study file. Raises StudyFileError if there is a file of that name, or the folder cannot be written."""
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise StudyFileError(str(file), ["is there already; name another file with -o"]) from None
    except OSError as error:
        raise StudyFileError(str(file), [f"cannot be written: {error.strerror}"]) from None
