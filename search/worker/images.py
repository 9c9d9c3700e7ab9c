"""A study's images: the folder that they are read from here, and whether they are the same as for its scores.

The first process that reads a part of the data stores its content's hash with the study. Later ones must find the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from affinity_search.studies.data import OwnData, from_files
from affinity_search.studies.errors import StudyFileError, either
from affinity_search.studies.model.spec import StudySpec

if TYPE_CHECKING:
    from affinity_search.search.training.data.own_parts import Found
    from affinity_search.search.training.data.splits import Contents, Fold, Part, Seen, Split
    from affinity_search.storage.study import StoredStudy

Say = Callable[[str], None]
IMAGES_SHARE = 0.7  # of the free memory; the rest is for the network and its steps


def folder_for(spec: StudySpec, given: Path | None, stored: StoredStudy | None, say: Say) -> Path | None:
    """The folder of the study's images here: the given one, or the one stored with the study. None: Keras downloads
    them.

    Raises:
        StudyFileError: the study does not read the given folder.
    """
    name, package = spec.data.set, spec.data.source.part_of
    if package is not None:
        if given is not None:
            others = either([source.name for source in from_files()])
            raise StudyFileError(
                spec.name,
                [f"--data-dir {given} has no effect: {name} are part of {package}; leave it out, or "
                 f"search your images' set with --set data.set={others} and another --name"],
            )  # fmt: skip
        return None
    kept = Path(stored.data_dir) if stored and stored.data_dir else None
    if spec.data.own:
        return _own_place(Path(str(spec.data.path)), given, kept)
    if given is None and kept is not None and not kept.is_dir():
        say(f"the study's data folder {kept} is not here; reading Keras' own {name} (--data-dir names another folder)")
        return None
    return given.absolute() if given else kept


def _own_place(path: Path, given: Path | None, kept: Path | None) -> Path:
    """Where own data lie here. `path` is the study file's, absolute.

    `given` is a folder that holds them at the end of the same path, or the data themselves.
    """
    if given is None:
        return path if kept is None or path.exists() else kept
    given = given.absolute()
    tails = (given.joinpath(*path.parts[start:]) for start in range(1, len(path.parts)))
    return next((tail for tail in tails if tail.exists()), given)


def found_in_place(name: str, place: Path, own: OwnData) -> Found:
    """What the own data of the set `name` at `place` are. Raises DataError as `with_found` does."""
    from affinity_search.search.training.data.own_parts import found_at

    return found_at(name, place, own)


def with_found(
    spec: StudySpec, place: Path | None, found_at: Callable[[str, Path, OwnData], Found] = found_in_place
) -> StudySpec:
    """The study with what is found of its own data at `place`; a study of a published set as it is.

    Raises:
        DataError: they are not there, or cannot be used; one line for each reason.
        StudyFileError: the study does not fit them.
    """
    if not spec.data.own or spec.data.found is not None:
        return spec
    own = spec.data.source.own
    assert own is not None
    assert place is not None, "folder_for has named it"
    plain = spec.to_dict()
    plain["data"] = plain["data"] | {"found": asdict(found_at(spec.data.set, place, own))}
    return StudySpec.from_dict(plain, spec.name)


class StudyImages:
    """Is told of each part of a study's data when it is read here."""

    def __init__(self, study: StoredStudy, given: Path | None, say: Say, *, settles: bool = True) -> None:
        """With `settles` false nothing is stored: for a command that only reads the database."""
        self._study = study
        self._settles = settles
        self.folder = folder_for(study.spec, given, study, say)

    def __call__(self, part: Part, split: Split) -> None:
        """Store the part's content with the study, if no process has done so.

        Raises:
            DataError: the study was trained on other images.
        """
        from affinity_search.search.training.data.splits import contents_of

        content = contents_of(split, self._study.spec.data.source.n_classes)
        if self._settles:
            self._study = settle(self._study, part, content)
        refuse_others(self._study, part, content)


def settle(study: StoredStudy, part: Part, content: Contents) -> StoredStudy:
    """The study with the content that counts for this part. It may differ from the given one."""
    return study.settle(f"{part}_data", json.dumps(content.to_dict()), f"{part} images settled: {content}")


def refuse_others(study: StoredStudy, part: Part, content: Contents) -> None:
    """Compare, and store nothing.

    Raises:
        DataError: the study was trained on other images; the line says what differs.
    """
    from affinity_search.search.training.data.splits import Contents
    from affinity_search.search.training.errors import DataError

    kept: str | None = getattr(study, f"{part}_data")
    known = content if kept is None else Contents.from_dict(json.loads(kept))
    if content != known:
        raise DataError(
            f"study {study.name!r} has other {study.spec.data.title} {part} images than those here: "
            f"{content.difference_from(known)}; name their folder with --data-dir, or search these under another --name"
        )


def refuse_too_large(spec: StudySpec, needed: int, room: int, device: str) -> None:
    """Compare the bytes of the images with those that are free on the device.

    Raises:
        DataError: they do not fit, or leave too little for training.
    """
    from affinity_search.search.training.errors import DataError

    if needed <= IMAGES_SHARE * room:
        return
    shape, fitting = spec.data.source.shape, ""
    if len(shape) > 1 and spec.data.own:
        scale = (IMAGES_SHARE * room / needed) ** 0.5
        sides = [max(1, int(side * scale)) for side in shape[:2]]
        fitting = f"; data.size = {sides} would fit"
    raise DataError(
        f"the images of {spec.name!r} take {needed / 2**20:.0f} MiB on {device}, where {room / 2**20:.0f} MiB are "
        f"free, and training needs room beside them{fitting}"
    )


def examine(spec: StudySpec, folder: Path | None, stored: StoredStudy | None) -> dict[Part, Contents]:
    """Check that the study can be trained on the files in the folder; without a folder, on the published set.

    Returns:
        What was read of the folder.

    Raises:
        StudyFileError: a class would have no image for training or for scoring.
        DataError: the folder lacks what the study needs, or the study was trained on other images.
    """
    from affinity_search.search.training.data import splits as datasets

    data = spec.data
    found: dict[Part, Contents] = {}
    if folder is None:
        mistake = datasets.holdout_mistake(data.source, data.minority, _held(spec, 0))
        if mistake is not None:
            raise StudyFileError(spec.name, [f"data.validation: {mistake}"])
        return found

    def look(part: Part, split: Split) -> None:
        found[part] = datasets.contents_of(split, data.source.n_classes)
        if stored is not None:
            refuse_others(stored, part, found[part])

    read_splits(spec, folder, look)
    return found


def _held(spec: StudySpec, run: int) -> float | Fold | None:
    """What the `run`-th training of a trial holds out; None under `article`."""
    from affinity_search.search.training.data.splits import Fold

    return Fold(run, spec.data.runs) if spec.data.folds else spec.data.held_out


def read_splits(
    spec: StudySpec,
    folder: Path | None,
    seen: Seen | None = None,
    *,
    draw: int = 0,
    run: int = 0,
    whole: Split | None = None,
) -> tuple[Split, Split]:
    """The images that a study trains on, and those that score its epochs. `seen` is told of each part when it is read.

    `draw` 0 is the search's own; others are for runs that judge its settings on images that it has not chosen them by.
    `run` says which training of a trial: each holds other images out. `whole` are all training images, where they were
    read before.

    Raises:
        DataError: the data set is not there, cannot be read, or has too few images.
    """
    from affinity_search.search.training.data.splits import search_splits

    data = spec.data
    of_the_study = (data.source, data.minority, _held(spec, run) or 0.0, spec.protocol, spec.seed)
    repeat = 0 if data.folds else run
    return search_splits(*of_the_study, folder, draw=draw, repeat=repeat, seen=seen, whole=whole)


def read_test(spec: StudySpec, folder: Path | None, seen: Seen | None = None) -> tuple[Split, tuple[float, ...] | None]:
    """The images of the test, and how many of each class (C,) the study imagines; None: as many as there are.

    Under `holdout` they are all test images, under `article` as few of the small classes as the study says.

    Raises:
        DataError: the test set is not there or cannot be read.
    """
    from affinity_search.search.training.data import splits as datasets

    data, whole = spec.data, spec.protocol == "holdout"
    test = datasets.test_split(data.source, data.minority, folder, whole=whole, seen=seen)
    if not whole:
        return test, None
    return test, datasets.test_shares(test.counts(data.source.n_classes), data.minority, data.source)
