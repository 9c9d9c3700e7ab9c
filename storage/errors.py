"""What can go wrong between a command and the database. Every message names the cause and the next step."""

from studies.errors import AffinitySearchError


class StorageError(AffinitySearchError):
    """The database cannot be used as asked: the command ends with this message."""


class NoDatabaseError(StorageError):
    """A command that only reads found no database, or one without our tables: it creates neither."""


class StudyNotFoundError(StorageError):
    """No study of that name is stored: the command ends with the names that are."""


class StudyMismatchError(StorageError):
    """The given definition would change what the stored scores mean: the command ends with the differing lines."""


class LostPlaceError(StorageError):
    """Somebody else holds the place now: the worker says so in a line, drops the trial and takes another place."""


class RepeatedFailureError(StorageError):
    """Places fail one after the other for one cause: whoever trains them stops instead of burning the budget."""


class NothingToExportError(StorageError):
    """The study has no finished trial, not the one that is asked for, or a trial lacks its scores."""
