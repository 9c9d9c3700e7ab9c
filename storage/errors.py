"""What can go wrong between a command and the database. Every message names the cause and the next step."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from affinity_search.studies.errors import AffinitySearchError

if TYPE_CHECKING:
    from affinity_search.storage.places.counts import Counts


class StorageError(AffinitySearchError):
    """The database cannot be used as asked. The command ends with this message."""


class StorageGoneError(StorageError):
    """The database was away for longer than the limit. The worker exits with this line, and its place becomes free."""

    @classmethod
    def after(cls, seconds: float, why: str) -> StorageGoneError:
        """With `why` in the database's own words."""
        return cls(
            f"the storage was away for {seconds:.0f} s ({why}); start again when it is back: no reported score is lost"
        )


class VanishedError(StorageGoneError):
    """The SQLite file was deleted, moved or replaced while it was open. Its contents were saved, and the message says
    where. The process keeps its trial's checkpoint and ends with code 74. Nothing is tried again.
    """


class NoDatabaseError(StorageError):
    """A command that only reads found no database, or one without our tables. It creates neither."""


class OutdatedError(StorageError):
    """The tables are of an older version. Commands that write update them; the others end with this."""


class StudyNotFoundError(StorageError):
    """No study of that name is stored. The command ends with the names of the stored ones."""


class StudyMismatchError(StorageError):
    """The given definition would change what the stored scores mean. The command ends with the lines that differ."""


class SmallerBudgetError(StorageError):
    """The person asked for fewer places than the study has. On a terminal the command asks; else it ends with this."""

    def __init__(self, name: str, asked: int, counts: Counts) -> None:
        study = shlex.quote(name)
        self.free = counts.free
        closed = f" beside {counts.closed} closed ones" if counts.closed else ""
        self.has = f"study {name!r} has {counts.total} places ({counts.used} used, {counts.free} free){closed}"
        more = "opens closed places again" if counts.closed else "adds places"
        advice = f"--trials N with N above {counts.total} {more}"
        if counts.free:
            advice = f"leave --trials out to train the {counts.free} free ones; affinity-search stop {study} ends it"
        super().__init__(f"{self.has}, and places are never taken away: --trials {asked} has no effect; {advice}")


class HeldPlacesError(StorageError):
    """A worker trains the study that should be deleted. The command ends and names the worker."""

    def __init__(self, name: str, holders: Sequence[str]) -> None:
        shown = ", ".join(holders[:3]) + (f" and {len(holders) - 3} more" if len(holders) > 3 else "")
        super().__init__(
            f"study {name!r} is being trained: {shown}; stop them with "
            f"`affinity-search stop {shlex.quote(name)} --now`, and try again when they have given their places back"
        )


class ComparisonNotFoundError(StorageError):
    """No comparison of that name."""


class LostPlaceError(StorageError):
    """Another worker holds the place now. This one says so, drops the trial and takes another place."""


class RepeatedFailureError(StorageError):
    """Places fail one after the other for the same cause. The search stops, so that it does not use up the budget."""


class NothingToExportError(StorageError):
    """The study has no finished trial, lacks the one that was asked for, or a trial lacks its scores."""
