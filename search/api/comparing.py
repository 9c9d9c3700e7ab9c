"""Which comparison is meant: a file, a bundled name, a study with heads, or a stored comparison's name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from affinity_search.search.worker.images import examine, folder_for, found_in_place, with_found
from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.errors import NoDatabaseError, OutdatedError, StorageError
from affinity_search.storage.stored.comparisons import (
    StoredComparison,
    create_or_continue_comparison,
    find_comparison,
)
from affinity_search.studies.comparisons import ComparisonSpec, is_comparison_file, load_comparison
from affinity_search.studies.model.limits import is_file_name


def open_comparison(
    source: str,
    url: str,
    asked: Mapping[str, Any],
    overrides: Sequence[str],
    data_dir: Path | None,
    say: Callable[[str], None],
) -> StoredComparison:
    """Create the comparison that is asked for, or go on with the stored one. `asked` is as for `load_comparison`.

    Nothing is stored before the definition and the images were checked.

    Raises:
        StudyFileError: every mistake at once. DataError: the images are missing.
        StudyMismatchError: the stored comparison of that name is another one.
        StorageError: the database cannot be opened or written.
    """
    spec = planned(source, url, asked, overrides)
    stored = _stored(spec.name, url)
    columns: dict[str, str | None] = {}
    if stored is None:
        spec = comparison_with_found(spec, data_dir)
        columns = _examined(spec, data_dir, say)
    backend = stored.backend if stored else open_backend(url, create=True)
    comparison, notes = create_or_continue_comparison(backend, spec, columns)
    for note in notes:
        say(note)
    return comparison


def comparison_with_found(spec: ComparisonSpec, data_dir: Path | None) -> ComparisonSpec:
    """The comparison with what is found of its own data. Raises as `with_found` does."""
    found_at = functools.cache(found_in_place)  # contestants share their data, and most levels too
    entries = []
    for entry in spec.entries:
        place = folder_for(entry.spec, data_dir, None, lambda _: None) if entry.spec.data.own else None
        entries.append(replace(entry, spec=with_found(entry.spec, place, found_at)))
    return replace(spec, entries=tuple(entries))


def planned(source: str, url: str, asked: Mapping[str, Any], overrides: Sequence[str]) -> ComparisonSpec:
    """The definition that `open_comparison` would store or go on with. Raises as it does; changes nothing."""
    stored = _stored(source, url)
    return _as_stored(stored, asked, overrides) if stored else load_comparison(source, asked, overrides)


def is_comparison_source(source: str, url: str) -> bool:
    """Whether this names a comparison: a stored one, a bundled one, or a file with contestants."""
    return is_comparison_file(source) or _stored(source, url) is not None


def _stored(name: str, url: str) -> StoredComparison | None:
    if is_file_name(name):
        return None
    try:
        return find_comparison(open_backend(url, create=False), name)
    except (NoDatabaseError, OutdatedError):
        return None


def _as_stored(stored: StoredComparison, asked: Mapping[str, Any], overrides: Sequence[str]) -> ComparisonSpec:
    """The stored definition; only its number of draws may be asked to grow."""
    others = [key for key, value in asked.items() if value is not None and key != "draws"]
    if others or overrides:
        what = ", ".join([f"--{key}" for key in others] + (["--set"] if overrides else []))
        raise StorageError(
            f"comparison {stored.name!r} is stored, and {what} cannot change it; leave it out to go on, or compare "
            "anew from the file or the study with another --name"
        )
    return replace(stored.spec, draws=max(stored.spec.draws, asked.get("draws") or 0))


def _examined(spec: ComparisonSpec, data_dir: Path | None, say: Callable[[str], None]) -> dict[str, str | None]:
    """Check the images once for every level. Returns the columns of the searches' rows that come from it."""
    folder = None
    for level in dict.fromkeys(entry.level_text for entry in spec.entries):
        study = next(entry.spec for entry in spec.entries if entry.level_text == level)
        folder = folder_for(study, data_dir, None, say)
        examine(study, folder, None)
    return {"data_dir": str(folder)} if folder else {}
