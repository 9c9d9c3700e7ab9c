"""What can go wrong while training; each message is one sentence for people, with the value and the next step."""

from collections.abc import Iterable
from itertools import islice

from affinity_search.search.devices.errors import TrainingError, UnfitMachineError

NAMED = 10  # a message names so many things of one kind, and says how many more there are


def listed(words: Iterable[object], total: int | None = None, *, most: int = NAMED) -> str:
    """The first words, and how many more there are. `total` is how many there are in all; None counts them."""
    if total is None:
        words = list(words)
        total = len(words)
    shown = [str(word) for word in islice(words, most)]
    more = total - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


class DataError(UnfitMachineError):
    """Data not found, unreadable, or too small for the imbalance asked for."""


class MissingDataError(DataError):
    """Data not found at all."""


class DivergedError(TrainingError):
    """The epoch's loss is NaN or infinite: these parameters failed, a retry would give the same."""

    def __init__(self, epoch: int, loss: float) -> None:
        super().__init__(
            f"The loss became {loss} in epoch {epoch + 1}: these parameters do not train; "
            "lower the learning rate or narrow the search space if many trials end so."
        )
        self.epoch = epoch
        self.loss = loss


class TrainingInterrupted(TrainingError):  # noqa: N818 - named after what happened, as KeyboardInterrupt is
    """`should_stop` said so: the trial is unfinished, not failed."""


class OutOfMemoryError(TrainingError):
    """The device had no room for a step: perhaps others used it just then, so once more is worth a try."""

    trials_ended = 0  # by the same process, before


class CheckpointError(TrainingError):
    """A checkpoint cannot be written or read: training goes on without it."""


class ModelFileError(TrainingError):
    """A file holds no model that `train` wrote, or cannot be opened."""
