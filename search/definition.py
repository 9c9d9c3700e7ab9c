"""Which study is meant: a file, a bundled name, or the name of a stored study."""

from __future__ import annotations

from collections.abc import Sequence

from search.sampling import check_options
from storage.backend import Backend, open_backend
from storage.creation import create_or_continue
from storage.errors import NoDatabaseError, StudyNotFoundError
from storage.study import StoredStudy, find_study, study_names
from studies import bundled
from studies.errors import StudyFileError
from studies.files import load
from studies.overrides import lay_over
from studies.spec import StudySpec


def open_storage_for(url: str, source: str, overrides: Sequence[str] = ()) -> Backend:
    """Open the storage for `open_study`, creating its tables only for a source that can make a study.

    Raises:
        StudyFileError, StorageError: before anything is written: a mistyped name leaves no empty database behind.
    """
    if _is_path(source):
        load(source, overrides)
    if _is_path(source) or source in bundled.names():
        return open_backend(url, create=True)
    try:
        return open_backend(url, create=False)
    except NoDatabaseError as error:
        raise StudyNotFoundError(f"{_unknown(source)}; and {error}") from error


def open_study(
    backend: Backend, source: str, *, name: str | None = None, overrides: Sequence[str] = (), trials: int | None = None
) -> tuple[StoredStudy, list[str]]:
    """Create the study that `source` describes, or continue the stored one.

    A stored study goes before a bundled one of the same name: who launches `digits` again continues it as it was
    created, with its overrides. A path always reads the file. `overrides` are laid over either and checked alike.

    Returns:
        The study, and one line for each thing created or changed.

    Raises:
        StudyFileError: mistakes in the file or the overrides.
        StudyNotFoundError: `source` is no file, no bundled study and no stored one.
        StudyMismatchError: a stored study of that name means something else.
    """
    overrides = [*overrides, *([f"trials={trials}"] if trials is not None else [])]
    if not overrides and name in (None, source) and not _is_path(source):
        # Taken as it is: laying an older copy over it could undo what somebody changes this moment.
        stored = find_study(backend, source)
        if stored is not None:
            return stored, []
    spec = _resolve(backend, source, name, overrides)
    if _is_path(spec.name):  # its workers, which are given the name, would look for a file
        raise StudyFileError(source, [f"name: {spec.name} given; allowed: a name that does not end in .toml"])
    check_options(spec.sampler, spec.pruner, spec.training.epochs)
    return create_or_continue(backend, spec)


def _resolve(backend: Backend, source: str, name: str | None, overrides: Sequence[str]) -> StudySpec:
    renamed = [*overrides, *([f"name={_quoted(name)}"] if name else [])]
    if _is_path(source):
        return load(source, renamed)
    stored = find_study(backend, name or source) if name in (None, source) else None
    if stored is not None:
        return _overridden(stored.spec, overrides)
    if source in bundled.names():
        return load(source, renamed)
    template = find_study(backend, source)
    if template is not None:
        return _overridden(template.spec, renamed)
    names = ", ".join(study_names(backend)[:20]) or "none"
    raise StudyNotFoundError(f"{_unknown(source)}; stored in {backend}: {names}")


def _is_path(source: str) -> bool:
    return source.endswith(".toml")


def _quoted(name: str) -> str:
    """As a TOML string, so that no name is taken for a number or a table."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _overridden(spec: StudySpec, overrides: Sequence[str]) -> StudySpec:
    raw = spec.to_dict()
    malformed = lay_over(raw, overrides)
    if malformed:
        raise StudyFileError(spec.name, malformed)
    return StudySpec.from_dict(raw, spec.name)


def _unknown(source: str) -> str:
    return (
        f"{source!r} is neither a study file (they end in .toml) nor a study: bundled are {', '.join(bundled.names())}"
    )
