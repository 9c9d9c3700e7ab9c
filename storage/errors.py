"""What can go wrong between a command and the database. Every message names the cause and the next step."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from affinity_search.studies.errors import AffinitySearchError

if TYPE_CHECKING:
    from affinity_search.storage.places.counts import Counts


class StorageError(AffinitySearchError):
    """The database cannot be used as asked: the command ends with this message."""


class StorageGoneError(StorageError):
    """The database was away for longer than the limit: the worker exits with this line; its place comes back."""

    @classmethod
    def after(cls, seconds: float, why: str) -> StorageGoneError:
        """With `why` in the database's own words."""
        return cls(
            f"the storage was away for {seconds:.0f} s ({why}); start again when it is back: nothing that was "
            "reported is lost"
        )


class VanishedError(StorageGoneError):
    """The SQLite file was deleted, moved or replaced while it was open; its contents have been saved, and the message
    says where. The process keeps its trial's checkpoint and ends with code 74: nothing is tried again.
    """


class NoDatabaseError(StorageError):
    """A command that only reads found no database, or one without our tables: it creates neither."""


class OutdatedError(StorageError):
    """The tables are of an older version: commands that write bring them up to date, the others end with this."""


class StudyNotFoundError(StorageError):
    """No study of that name is stored: the command ends with the names that are."""


class StudyMismatchError(StorageError):
    """The given definition would change what the stored scores mean: the command ends with the differing lines."""


class SmallerBudgetError(StorageError):
    """Fewer places were asked for than the study has: the command asks on a terminal, and else ends with this."""

    def __init__(self, name: str, asked: int, counts: Counts) -> None:
        study = shlex.quote(name)
        self.free = counts.free
        self.has = f"study {name!r} has {counts.total} places ({counts.used} used, {counts.free} free)"
        advice = f"--trials N with N above {counts.total} adds places"
        if counts.free:
            advice = f"leave --trials out to train the {counts.free} free ones; affinity-search stop {study} ends it"
        super().__init__(f"{self.has}, and places are never taken away: --trials {asked} has no effect; {advice}")


class HeldPlacesError(StorageError):
    """Somebody is at work on a study that is to be removed: the command ends with who it is."""

    def __init__(self, name: str, holders: Sequence[str]) -> None:
        shown = ", ".join(holders[:3]) + (f" and {len(holders) - 3} more" if len(holders) > 3 else "")
        super().__init__(
            f"study {name!r} is being trained: {shown}; stop them with "
            f"`affinity-search stop {shlex.quote(name)} --now`, and try again when they have given their places back"
        )


class LostPlaceError(StorageError):
    """Somebody else holds the place now: the worker says so in a line, drops the trial and takes another place."""


class RepeatedFailureError(StorageError):
    """Places fail one after the other for one cause: whoever trains them stops instead of burning the budget."""


class NothingToExportError(StorageError):
    """The study has no finished trial, not the one that is asked for, or a trial lacks its scores."""
