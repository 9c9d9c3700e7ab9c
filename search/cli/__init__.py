"""The `affinity-search` command. Human text goes to stderr, data to stdout."""

from __future__ import annotations

import sys

from search import OUT_OF_MEMORY_EXIT, UNFIT_DEVICE_EXIT, UNFIT_MACHINE_EXIT


def main() -> None:
    """Run the command; a person's mistake or an outside failure becomes one message, never a traceback."""
    from search.cli.app import app
    from search.devices.errors import DeviceError
    from search.training.errors import OutOfMemoryError, TrainingError, UnfitMachineError
    from storage.errors import RepeatedFailureError
    from studies.errors import AffinitySearchError

    try:
        app()
    except DeviceError as error:
        _fail(str(error), UNFIT_DEVICE_EXIT)
    except (UnfitMachineError, RepeatedFailureError) as error:
        _fail(str(error), UNFIT_MACHINE_EXIT)
    except OutOfMemoryError as error:
        _fail(str(error), OUT_OF_MEMORY_EXIT)
    except (AffinitySearchError, TrainingError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        message = _storage_failure(error)
        if message is None:
            raise
        _fail(message)


def _fail(message: str, code: int = 1) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _storage_failure(error: Exception) -> str | None:
    """What to say when the database or the study went away in the middle of a command; None for every other error."""
    if isinstance(error, KeyError) and "Record does not exist" in str(error):  # Optuna's
        return "the study was deleted while this command worked on it; see: affinity-search status"
    if not type(error).__module__.startswith(("sqlalchemy.", "optuna.")):
        return None
    from storage.urls import explain_late

    return explain_late(error)
