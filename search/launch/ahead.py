"""A worker's process that is begun before its study is known, and imports what workers need beside the launcher.

The launcher takes a second or more until it knows the study. On another core this process imports TensorFlow and Keras
in that time. Then it is told a worker's arguments, on its stdin, and is a worker like any other. Its stdin ends with
the launcher, and this process with its stdin: nothing stays of a launch that comes to nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from affinity_search.search import devices
from affinity_search.search.devices.kinds import CPU
from affinity_search.search.devices.packages import UNNEEDED, backend, without
from affinity_search.search.devices.slots import Slot, cpu_cores
from affinity_search.search.launch.children import COMMAND, LATER, surroundings

# Python reads it when it begins.
UNBUFFERED = {"PYTHONUNBUFFERED": "1"}


class Ahead:
    """The launcher's side of it: one process, which becomes the first worker."""

    def __init__(self, slot: Slot) -> None:
        """Begin it for a worker in this slot."""
        self._slot = slot
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [sys.executable, *COMMAND, "worker", LATER],
            env=surroundings() | slot.environment | UNBUFFERED,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # as every worker has
        )

    @classmethod
    @contextlib.contextmanager
    def begun(cls, slots: Sequence[Slot]) -> Iterator[Ahead | None]:
        """Begin it, and end it with the context unless it became a worker.

        None where it would not help: on one core, or without a worker on the CPU. On accelerators nothing was measured:
        their libraries look at the environment when they are imported.
        """
        on_cpu = [slot for slot in slots if slot.device == CPU.key]
        if not on_cpu or cpu_cores() < 2 or backend() != "tensorflow":
            yield None
            return
        ahead = cls(on_cpu[0])
        try:
            yield ahead
        finally:
            ahead.end()

    def become(
        self, slot: Slot, arguments: Sequence[str], environment: Mapping[str, str], log: str
    ) -> subprocess.Popen[bytes] | None:
        """Make it the worker of a slot like its own; its output goes to the file `log`.

        Returns the process; None if it is another worker already, belongs elsewhere, or has died.
        """
        process = self._process
        if process is None or (slot.device, slot.environment) != (self._slot.device, self._slot.environment):
            return None
        told = json.dumps({"arguments": list(arguments), "environment": dict(environment), "log": log})
        try:
            assert process.stdin is not None
            process.stdin.write(told.encode() + b"\n")
            process.stdin.close()
        except OSError:
            self.end()
            return None
        self._process = None
        return process

    def end(self) -> None:
        """Nobody needs it."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None


def received() -> list[str]:
    """In the process itself: import, wait, and return the arguments of a worker, in its surroundings.

    Raises SystemExit if there will be none.
    """
    from affinity_search.storage.database.runtime import collector_skipping  # the launcher has no time for it yet

    with collector_skipping(), contextlib.suppress(Exception), without(*UNNEEDED):  # the worker tells what is wrong
        devices.import_ahead()
        from affinity_search.search.worker import setup  # noqa: F401
    told = sys.stdin.buffer.readline()
    if not told.endswith(b"\n"):
        raise SystemExit(0)
    request = json.loads(told)
    os.environ.clear()
    os.environ.update(request["environment"])
    for path, flags, numbers in ((os.devnull, os.O_RDONLY, (0,)), (request["log"], os.O_WRONLY, (1, 2))):
        opened = os.open(path, flags)
        for number in numbers:
            os.dup2(opened, number)
        os.close(opened)
    return list(request["arguments"])
