"""Errors of a machine and its devices, and the base of all errors in training."""

from collections.abc import Iterator
from contextlib import contextmanager


class TrainingError(Exception):
    """Base of all errors of data, device and training. A caller's mistake is a ValueError or TypeError."""


class UnfitMachineError(TrainingError):
    """This machine cannot train as it is. The worker stops, and its launcher does not start it again."""


# Errors that come up in training but are the machine's fault: a broken or shadowed package, a file or folder that
# cannot be read, a full disk.
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
        f"this machine cannot train as it is ({type(error).__name__}: {said[0]}); solve that, then launch again; "
        "to check: affinity-search doctor --probe"
    )


class DeviceError(UnfitMachineError):
    """The device is not there or can no longer be configured. Its worker stops; workers on other devices go on."""
