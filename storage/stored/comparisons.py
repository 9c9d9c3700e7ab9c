"""A stored comparison: a search for each contestant at each level, and the final runs of its best settings."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, delete, insert, select, update

from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.patience import Patience
from affinity_search.storage.errors import ComparisonNotFoundError, NothingToExportError, StudyMismatchError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.counts import Counts, counts_of
from affinity_search.storage.results.export import best_trials
from affinity_search.storage.results.final_runs import FinalRuns
from affinity_search.storage.stored.agenda import Agenda
from affinity_search.storage.stored.creation import create_study, refuse_mistakes
from affinity_search.storage.stored.planning import plan_final_runs
from affinity_search.storage.study import StoredStudy, optuna_study, study_by
from affinity_search.studies.comparisons import ComparisonSpec, Entry
from affinity_search.studies.model.spec import fingerprint_differences


@dataclass(frozen=True)
class Part:
    """One contestant at one level: its search, and its final runs once these are planned."""

    entry: Entry
    search: StoredStudy
    final: StoredStudy | None


@dataclass(frozen=True)
class StoredComparison(Agenda):
    """A comparison as it lives in the database. Its studies are ordinary ones."""

    backend: Backend
    token: str
    spec: ComparisonSpec
    _seen: dict[str, StoredStudy] = field(default_factory=dict)  # its studies by token: they are never replaced

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def studies(self) -> list[StoredStudy]:
        """All searches first, in the file's order, then the final runs that are planned."""
        parts = self.parts()
        return [part.search for part in parts] + [part.final for part in parts if part.final]

    def parts(self) -> list[Part]:
        """Every contestant at every level, in the file's order."""
        table = tables.studies
        query = select(table.c.token).where(table.c.comparison == self.token)
        tokens = {row.token for row in self.backend.transaction(lambda connection: connection.execute(query).all())}
        if tokens - self._seen.keys():
            fresh = {study.token: study for study in study_by(self.backend, comparison=self.token)}
            self._seen.update({token: self._own(study) for token, study in fresh.items() if token not in self._seen})
        searches = {(one.contestant, one.level): one for one in self._seen.values() if one.search is None}
        finals = {one.search: one for one in self._seen.values() if one.search is not None}
        found = []
        for entry in self.spec.entries:
            search = searches.get((entry.contestant, _level(entry)))
            if search is not None:  # it may have been deleted
                found.append(Part(entry, search, finals.get(search.token)))
        return found

    def _own(self, study: StoredStudy) -> StoredStudy:
        patience = self.backend.patience
        return study.made_patient(patience) if patience else study

    @property
    def is_unfinished(self) -> bool:
        """Whether a place is left, or final runs are still to be planned. It changes nothing."""
        parts = self.parts()
        counts = self._counts(parts)
        left = any(one.used < one.total for one in counts.values())
        return left or any(self._lacks_runs(part, counts) and Places.of(part.search).scored() for part in parts)

    def advance(self) -> bool:
        """Plan the final runs of every search that has ended. True while a search has not."""
        parts = self.parts()
        counts = self._counts(parts)
        pending = False
        for part in parts:
            done = counts[part.search.token]
            if done.used < done.total:
                pending = True
            elif self._lacks_runs(part, counts):
                self._plan(part)
        return pending

    def _counts(self, parts: Sequence[Part]) -> dict[str, Counts]:
        studies = [part.search for part in parts] + [part.final for part in parts if part.final]
        return counts_of(self.backend, [study.token for study in studies])

    def _lacks_runs(self, part: Part, counts: Mapping[str, Counts]) -> bool:
        """Whether final runs are not planned yet. Who plans may die between their study and its places."""
        return part.final is None or counts[part.final.token].total < self.spec.draws

    def _plan(self, part: Part) -> None:
        try:
            (best,) = best_trials(part.search, 1)
        except NothingToExportError:
            return  # every trial of this contestant failed; the others go on
        judged = FinalRuns.of(part.search)
        # If more draws are asked for later, they judge the settings that the first ones judged.
        settings = {run.trial: run.params for run in judged.runs} or {best.trial.number: best.place.params}
        planned = plan_final_runs(part.search.refreshed(), settings, self.spec.draws)
        self._seen[planned.token] = self._own(planned)

    def refreshed(self) -> StoredComparison:
        return load_comparison(self.backend, self.name)

    def made_patient(self, patience: Patience) -> StoredComparison:
        return replace(self, backend=replace(self.backend, patience=patience), _seen={})

    def under_its_name(self) -> StoredComparison:
        return self


def find_comparison(backend: Backend, name: str) -> StoredComparison | None:
    """The stored comparison of that name, or None."""
    table = tables.comparisons
    query = select(table.c.token, table.c.definition).where(table.c.name == name)
    row = backend.transaction(lambda connection: connection.execute(query).one_or_none())
    if row is None:
        return None
    return StoredComparison(backend, row.token, ComparisonSpec.from_dict(json.loads(row.definition)))


def load_comparison(backend: Backend, name: str) -> StoredComparison:
    """The stored comparison of that name.

    Raises:
        ComparisonNotFoundError: there is none; the message lists the stored ones.
    """
    found = find_comparison(backend, name)
    if found is None:
        names = comparison_names(backend)
        there = "it holds " + ", ".join(names[:20]) if names else "it holds none"
        raise ComparisonNotFoundError(f"no comparison {name!r} in {backend}; {there}")
    return found


def comparison_names(backend: Backend) -> list[str]:
    """Names of the stored comparisons, sorted."""
    query = select(tables.comparisons.c.name).order_by(tables.comparisons.c.name)
    return [row.name for row in backend.transaction(lambda connection: connection.execute(query).all())]


def create_or_continue_comparison(
    backend: Backend, spec: ComparisonSpec, columns: Mapping[str, str | None] | None = None
) -> tuple[StoredComparison, list[str]]:
    """Store a new comparison with its searches, or go on with the stored one of that name.

    The number of draws may grow. `columns` are further ones of the searches' rows. A process that dies half-way leaves
    some of the searches; the next call makes the others.

    Returns:
        The comparison, and one line for each thing created or changed.

    Raises:
        StudyFileError: a study that no worker could train.
        StudyMismatchError: the stored comparison is another one, or a study has the name of one of its searches.
    """
    for entry in spec.entries:
        refuse_mistakes(entry.spec)
    with backend.exclusive():
        stored = find_comparison(backend, spec.name)
        notes = []
        if stored is None:
            _refuse_taken(backend, spec)
            stored = _insert(backend, spec)
            notes = [f"created comparison {spec.name!r}: {_size(spec)}"]
        else:
            notes = _continue(stored, spec)
            stored = load_comparison(backend, spec.name)
        there = {(part.entry.contestant, _level(part.entry)) for part in stored.parts()}
        for entry in stored.spec.entries:
            if (entry.contestant, _level(entry)) not in there:
                own = {"comparison": stored.token, "contestant": entry.contestant, "level": _level(entry)}
                create_study(backend, entry.spec, own | dict(columns or {}))
    return stored, notes


def _size(spec: ComparisonSpec) -> str:
    searched = sum(entry.spec.trials for entry in spec.entries)
    runs = f"{len(spec.entries)} × {spec.draws} final runs"
    return f"{len(spec.contestants)} contestants, {searched} places to search, {runs}"


def _level(entry: Entry) -> str:
    return json.dumps(dict(entry.level), sort_keys=True)


def _insert(backend: Backend, spec: ComparisonSpec) -> StoredComparison:
    token = secrets.token_hex(16)
    definition = json.dumps(spec.to_dict())
    row = {"token": token, "name": spec.name, "definition": definition}
    backend.transaction(
        lambda connection: connection.execute(insert(tables.comparisons).values(**row, created_at=backend.now()))
    )
    return StoredComparison(backend, token, spec)


def _refuse_taken(backend: Backend, spec: ComparisonSpec) -> None:
    for name in (spec.name, *(entry.spec.name for entry in spec.entries)):
        if optuna_study(backend, name) is not None:
            raise StudyMismatchError(f"{backend} holds a study {name!r}; choose another name with --name")


def _continue(stored: StoredComparison, spec: ComparisonSpec) -> list[str]:
    old = stored.spec
    lines = _differences(old, spec)
    if lines:
        shown = "\n".join(f"  {line}" for line in lines)
        raise StudyMismatchError(
            f"comparison {spec.name!r} is stored with another definition:\n{shown}\n"
            f"To go on as it is stored: affinity-search compare {spec.name}; to compare anew, choose another --name."
        )
    if spec.draws <= old.draws:
        return []
    merged = json.dumps(replace(old, draws=spec.draws).to_dict())
    change = update(tables.comparisons).where(tables.comparisons.c.token == stored.token).values(definition=merged)
    stored.backend.transaction(lambda connection: connection.execute(change))
    return [f"draws raised from {old.draws} to {spec.draws}"]


def _differences(old: ComparisonSpec, new: ComparisonSpec) -> list[str]:
    lines = []
    if old.baseline != new.baseline:
        lines.append(f"baseline: stored {old.baseline}, given {new.baseline}")
    before = {(each.contestant, _level(each)): each.spec for each in old.entries}
    now = {(each.contestant, _level(each)): each.spec for each in new.entries}
    lines += [f"contestant {name} {level}: not stored" for name, level in now.keys() - before.keys()]
    lines += [f"contestant {name} {level}: stored, not given" for name, level in before.keys() - now.keys()]
    for key in before.keys() & now.keys():
        lines += [f"{key[0]}: {line}" for line in fingerprint_differences(before[key], now[key])]
        for part in ("space", "trials", "sampler", "pruner"):
            if getattr(before[key], part) != getattr(now[key], part):
                lines.append(f"{key[0]}: another {part}")
    return sorted(lines)


def delete_comparison_row(backend: Backend, token: str) -> None:
    """Forget the comparison. Its studies are deleted before."""

    def forget(connection: Connection) -> None:
        for table in (tables.deliveries, tables.comparisons):
            connection.execute(delete(table).where(table.c.token == token))

    backend.transaction(forget)
