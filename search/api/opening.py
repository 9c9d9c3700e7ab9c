"""Which study is meant: a file, a bundled name, or the name of a stored study."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from affinity_search.search.worker.images import examine as look_at
from affinity_search.search.worker.images import folder_for, settle, with_found
from affinity_search.storage.database.backend import Backend, open_backend
from affinity_search.storage.errors import NoDatabaseError, OutdatedError, StudyNotFoundError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.stored.creation import create_or_continue, refuse_mistakes
from affinity_search.storage.study import StoredStudy, find_study, is_comparison, study_names
from affinity_search.studies import bundled
from affinity_search.studies.files import load, overridden
from affinity_search.studies.model.limits import is_file_name
from affinity_search.studies.model.spec import StudySpec


@dataclass(frozen=True)
class Asked:
    """What a person asks for: a study by its file or name, and values that override its own."""

    source: str
    name: str | None = None
    overrides: tuple[str, ...] = ()
    data_dir: Path | None = None

    @classmethod
    def of(
        cls,
        source: str,
        name: str | None,
        overrides: Sequence[str] | None,
        trials: int | None,
        data_dir: Path | None = None,
    ) -> Asked:
        """From the options of a command; `--trials N` is `--set trials=N`."""
        more = [] if trials is None else [f"trials={trials}"]
        return cls(source, name, (*(overrides or ()), *more), data_dir)

    @property
    def renamed(self) -> list[str]:
        """The overrides with the new name, for a definition that is to be stored under it."""
        return [*self.overrides, *([f"name={_quoted(self.name)}"] if self.name is not None else [])]

    @property
    def counts(self) -> bool:
        """Whether the person asked for a number of places. The file's own number does not change a stored study."""
        return any(override.partition("=")[0].strip() == "trials" for override in self.overrides)


def open_storage_for(url: str, asked: Asked, *, into_existing: bool = False) -> Backend:
    """Open the storage for `open_study`, creating its tables only for a source that can make a study.

    Raises:
        StudyFileError, DataError, StorageError: before anything is written: a mistake leaves no empty database behind.
    """
    spec = load(asked.source, asked.renamed) if is_file_name(asked.source) else None
    try:
        return open_backend(url, create=False)
    except OutdatedError:
        pass
    except NoDatabaseError as error:
        if not is_file_name(asked.source) and asked.source not in bundled.names():
            raise StudyNotFoundError(f"{_unknown(asked.source)}; and {error}") from error
        spec = spec or load(asked.source, asked.renamed)
        refuse_mistakes(spec)
        place = folder_for(spec, asked.data_dir, None, lambda _: None)
        look_at(with_found(spec, place), place, None)
    return open_backend(url, create=True, into_existing=into_existing)


def open_study(backend: Backend, asked: Asked, *, examine: bool = True) -> tuple[StoredStudy, list[str]]:
    """Create the study that is asked for, or continue the stored one.

    A stored study goes before a bundled one of the same name. So a second `launch digits`, or `launch digits --name q`,
    continues the study as it was created, with its overrides. A path always reads the file. Overrides apply to both. A
    stored study gets more places only if the overrides ask for them.

    The images of a new study are checked before it is stored. The images of a stored study are checked if their folder
    is given. Workers check what they read, so they pass `examine` false.

    Returns:
        The study, and one line for each thing created or changed.

    Raises:
        StudyFileError: mistakes in the file or the overrides, or a data folder that the study does not read.
        DataError: the folder lacks what the study needs, or the study was trained on other images.
        StudyNotFoundError: the source is no file, no bundled study and no stored one.
        StudyMismatchError: the stored study of that name has another definition.
    """
    # The lock lasts from reading the stored definition to writing it. Otherwise an older copy could undo what another
    # launcher changes at the same moment.
    with backend.exclusive():
        spec = _resolve(backend, asked)
        stored = find_study(backend, spec.name)
        notes: list[str] = []
        folder = folder_for(spec, asked.data_dir, stored, notes.append)
        spec = with_found(spec, folder)
        looks = stored is None or (examine and asked.data_dir is not None)
        found = look_at(spec, folder, stored) if looks else {}
        study, more = create_or_continue(backend, spec, resize=asked.counts)
        if looks and folder:
            study = study.settle("data_dir", str(folder), f"images in {folder}")
        for part, content in found.items():
            study = settle(study, part, content)
        return study, [*more, *(notes if examine else ())]


def planned_study(url: str, asked: Asked) -> tuple[StudySpec, StoredStudy | None]:
    """The definition that `open_study` would create or go on with, and the stored study if there is one.

    Raises as `open_study` does; changes nothing.
    """
    try:
        backend = open_backend(url, create=False, read_only=True)
    except (NoDatabaseError, OutdatedError):
        spec, stored = load(asked.source, asked.renamed), None
    else:
        spec = _resolve(backend, asked)
        stored = find_study(backend, spec.name)
    if stored is not None and not asked.counts:
        spec = spec.model_copy(update={"trials": Places.of(stored).counts().total})  # closed places stay closed
    refuse_mistakes(spec)
    return with_found(spec, folder_for(spec, asked.data_dir, stored, lambda _: None)), stored


def _resolve(backend: Backend, asked: Asked) -> StudySpec:
    source = asked.source
    if is_file_name(source):
        return load(source, asked.renamed)
    stored = find_study(backend, source if asked.name is None else asked.name)
    if stored is not None and _is_of(stored.spec, source):
        return overridden(stored.spec, asked.overrides)
    if source in bundled.names():
        return load(source, asked.renamed)
    template = find_study(backend, source)
    if template is not None:
        return overridden(template.spec, asked.renamed)
    if is_comparison(backend, source):
        raise StudyNotFoundError(
            f"{source!r} is a comparison; go on with: affinity-search compare {shlex.quote(source)}"
        )
    names = ", ".join(study_names(backend)[:20]) or "none"
    raise StudyNotFoundError(f"{_unknown(source)}; studies in {backend}: {names}")


def _is_of(stored: StudySpec, source: str) -> bool:
    """Whether the stored study may have come from the source. The same name is not enough to continue it."""
    if stored.name == source:
        return True
    if source not in bundled.names():
        return False
    made_from = load(source)
    return (stored.data.set, stored.protocol) == (made_from.data.set, made_from.protocol)


def _quoted(name: str) -> str:
    """As a TOML string, so that no name is taken for a number or a table."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unknown(source: str) -> str:
    return (
        f"{source!r} is neither a study file (.toml) nor a known study; bundled studies: {', '.join(bundled.names())}"
    )
