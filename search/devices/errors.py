"""What can be wrong with a machine and its devices, and the base of all that can go wrong in training."""

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


class DeviceError(UnfitMachineError):
    """The device asked for is not there or can no longer be configured: its worker stops, those of others go on."""
