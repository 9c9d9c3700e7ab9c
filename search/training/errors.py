"""What can go wrong while training; each message is one sentence for people, with the value and the next step."""

from collections.abc import Iterator
from contextlib import contextmanager


class TrainingError(Exception):
    """Base of what can go wrong with data, device and training; a caller's own mistake is a ValueError or TypeError."""


class UnfitMachineError(TrainingError):
    """Nothing can be trained on this machine as it is: the worker stops, and its launcher does not start it again."""


# What the training of a place cannot be blamed for, although it came up there: a package that is broken or shadowed, a
# file or folder that may not be read, a full disk.
MACHINE_ERRORS = (UnfitMachineError, ImportError, OSError)


@contextmanager
def told_as_unfit() -> Iterator[None]:
    """Within it such an error becomes UnfitMachineError."""
    try:
        yield
    except UnfitMachineError:
        raise
    except MACHINE_ERRORS as error:
        raise UnfitMachineError(unfit_text(error)) from error


def unfit_text(error: BaseException) -> str:
    """One line for people."""
    if isinstance(error, UnfitMachineError):
        return str(error)
    said = str(error).strip().splitlines()[:1] or ["no reason given"]
    return (
        f"this machine cannot train as it is ({type(error).__name__}: {said[0]}); mend that, then launch again: "
        "affinity-search doctor --probe"
    )


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
