"""Which study is meant: a file, a bundled name, or the name of a stored study."""

from __future__ import annotations

from collections.abc import Sequence

from search.sampling import check_options
from storage.backend import Backend
from storage.errors import StudyNotFoundError
from storage.study import StoredStudy, create_or_continue, find_study, study_names
from studies import bundled
from studies.errors import StudyFileError
from studies.files import load
from studies.overrides import lay_over
from studies.spec import StudySpec


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
    raise StudyNotFoundError(_unknown(backend, source))


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


def _unknown(backend: Backend, source: str) -> str:
    stored = ", ".join(study_names(backend)[:20]) or "none"
    return (
        f"{source!r} is neither a study file (they end in .toml) nor a study: bundled are "
        f"{', '.join(bundled.names())}; stored in {backend}: {stored}"
    )
