"""The exit codes of all commands. `docs/commands.md` repeats the table; a test compares both."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class Exit(IntEnum):
    """How a command ended. Codes from 64 on are like those of sysexits.h. A launcher reads its workers' codes."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DONE = 0, "The command did what it was asked."
    FAILED = 1, "The command was refused or failed; the last line on stderr says why and what to do."
    MISUSE = 2, "The command line itself is wrong; the usage is shown."
    LOST = 3, "`doctor` found lost or half-ended trials and did not repair them."
    STOPPED = 4, "`launch` or `worker` was asked to stop while places are free; `launch` goes on."
    NO_SCORE = 5, "Every trial of this `launch` failed; its last lines say why."
    DIFFERENT = 6, "`verify` trained a run again, and it came out different."
    UNFIT_DEVICE = 69, "The device is gone, full, or cannot be used; other devices may go on."
    OUT_OF_MEMORY = 71, "The GPU has no room for a trial."
    VANISHED = 74, "The SQLite file was deleted, moved or replaced; the last line says where it is saved."
    UNFIT_MACHINE = (
        78,
        "Nothing can be trained here: data or a package is missing, or trials fail again and again for one cause.",
    )
    INTERRUPTED = 130, "Ctrl-C ended a command that had nothing to finish."


def exit_for(error: BaseException) -> Exit | None:
    """The code for a person's mistake or an outside failure. None for a bug: its traceback is shown.

    The same fault has the same code in every command. The first match counts.
    """
    own: Exit | None = getattr(error, "exit_code", None)  # a launcher's, from its workers' codes
    return own or next((code for code, kinds in _table() if isinstance(error, kinds)), None)


def _table() -> tuple[tuple[Exit, tuple[type[BaseException], ...]], ...]:
    """The most special kinds first. Imported late, so `--help` is fast."""
    from affinity_search.search.devices.errors import DeviceError, TrainingError, UnfitMachineError
    from affinity_search.search.devices.nvidia import NoSuchDeviceError
    from affinity_search.search.training.errors import OutOfMemoryError
    from affinity_search.storage.errors import RepeatedFailureError, VanishedError
    from affinity_search.studies.errors import AffinitySearchError

    return (
        (Exit.UNFIT_DEVICE, (DeviceError, NoSuchDeviceError)),
        (Exit.OUT_OF_MEMORY, (OutOfMemoryError,)),
        (Exit.UNFIT_MACHINE, (UnfitMachineError, RepeatedFailureError)),
        (Exit.VANISHED, (VanishedError,)),
        (Exit.FAILED, (AffinitySearchError, TrainingError, BrokenPipeError)),
        (Exit.INTERRUPTED, (KeyboardInterrupt,)),
    )
