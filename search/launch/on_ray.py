"""Workers on a Ray cluster. Each is an actor that runs the worker's command on its node. The usual launcher watches it.

The command is a process of its own: a worker handles signals in its main thread, and an actor's method does not run
there. The storage's URL is an argument of the actor's method, which puts it into the command's environment. Ray's
dashboard and logs do not show arguments, but they do show a runtime environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from affinity_search.search.devices.kinds import ACCELERATORS, ANY_KIND, CPU, GPU, KINDS
from affinity_search.search.devices.nvidia import NoSuchDeviceError
from affinity_search.search.devices.slots import Slot
from affinity_search.search.launch.children import surroundings
from affinity_search.search.launch.process import WorkerProcess
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.stored.agenda import Agenda
from affinity_search.storage.urls import is_sqlite
from affinity_search.studies.errors import AffinitySearchError

LOST = -signal.SIGKILL
LOG_KEPT = 64 * 1024  # bytes of a worker's log that come back to the launcher
PR_SET_PDEATHSIG = 1
KNOCK_S = 10.0


class RayError(AffinitySearchError):
    """There is no Ray cluster, or it went away. The launcher ends with this message."""


@dataclass(frozen=True)
class RaySlot(Slot):
    """Room for one worker in the cluster. Ray chooses a node that has these resources."""

    resources: dict[str, Any] = field(default_factory=dict)  # an actor's options


class Actor:
    """Runs one worker on the node where Ray put it."""

    def run(self, options: Sequence[str], environment: dict[str, str], python: str | None) -> tuple[int, bytes]:
        """The exit code of `python OPTIONS` (None: this node's own) and the end of what it printed."""
        libc = ctypes.CDLL(None)
        self._process = subprocess.Popen(
            [python or sys.executable, *options],
            env=surroundings() | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # When Ray ends an actor, its worker ends too and gives its place back.
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM)),
        )
        assert self._process.stdout is not None
        said = b""
        for line in self._process.stdout:
            said = (said + line)[-LOG_KEPT:]
        return self._process.wait(), said

    def tell(self, number: int) -> None:
        """Pass a signal on to the worker, if it has begun."""
        if hasattr(self, "_process") and self._process.poll() is None:
            self._process.send_signal(number)


class RemoteProcess:
    """Stands for the worker's process in the launcher."""

    def __init__(self, slot: RaySlot, agenda: Agenda, log: Path, call: tuple[Any, ...]) -> None:
        import ray

        self._log = log
        self._agenda = agenda
        actor = ray.remote(max_concurrency=2, max_restarts=0, **slot.resources)(Actor)
        self._actor = actor.remote()
        self._placed = self._actor.__ray_ready__.remote()
        self._done = self._actor.run.remote(*call)
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, or None while it runs or waits for room in the cluster."""
        if self._code is None and self._has_ended(0):
            self._code = self._outcome()
        elif self._code is None and not _is_ready(self._placed, 0) and not self._agenda.counts().free:
            self.kill()  # other workers train what is left: no need to wait for room any more
            self._code = 0
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """As Popen's."""
        if self._code is None:
            if not self._has_ended(timeout):
                raise subprocess.TimeoutExpired("worker", timeout or 0.0)
            self._code = self._outcome()
        return self._code

    def send_signal(self, number: int) -> None:
        """As Popen's. A worker that still waits for room is not started any more."""
        if _is_ready(self._placed, 0):
            self._actor.tell.remote(number)
        else:
            self.kill()

    def kill(self) -> None:
        """End the actor, and with it the worker."""
        import ray

        ray.kill(self._actor)

    def _has_ended(self, timeout: float | None) -> bool:
        return _is_ready(self._done, timeout)

    def _outcome(self) -> int:
        import ray

        try:
            code, said = ray.get(self._done)
        except ray.exceptions.RayError as error:
            self._keep(f"lost with its Ray node or actor ({type(error).__name__})\n".encode())
            return LOST
        self._keep(said)
        return int(code)

    def _keep(self, said: bytes) -> None:
        with contextlib.suppress(OSError):  # a log only informs
            self._log.write_bytes(said)


def _is_ready(reference: Any, timeout: float | None) -> bool:
    import ray

    return bool(ray.wait([reference], timeout=timeout)[0])


class RayWorker(WorkerProcess):
    """A launcher's worker on a node that Ray chooses."""

    python: str | None = None

    def start(self, agenda: Agenda, options: Sequence[str]) -> None:
        """Ask Ray for an actor. The actor and its worker start when the cluster has room."""
        assert isinstance(self.slot, RaySlot)
        command = self.new_command()
        call = ([*command, *options, "--", agenda.name], self.environment(agenda), self.python)
        self.process = RemoteProcess(self.slot, agenda, self.log, call)
        self.told = None


def connect(address: str, backend: Backend) -> None:
    """Join the cluster at `address`: ray://HOST:PORT, or ray for the one of RAY_ADDRESS or of this machine.

    Raises:
        RayError: Ray is not installed, there is no cluster, or its machines cannot share the SQLite file.
    """
    try:
        import ray
    except ImportError:
        raise RayError("--on ray needs Ray here and on every node; pip install 'affinity-search[ray]'") from None
    if address != "ray" and not address.startswith("ray://"):
        raise RayError(f"--on {address} given; allowed: ray, or ray://HOST:PORT for a cluster elsewhere")
    _knock(address if address != "ray" else os.environ.get("RAY_ADDRESS", ""))
    try:
        # Ray puts the current folder first on its workers' path. A module there could hide an installed one.
        with contextlib.chdir(Path(__file__).parents[1]):
            ray.init("auto" if address == "ray" else address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RayError(f"no Ray cluster at {address} ({reason}); start one with: ray start --head") from error
    machines = {node["NodeManagerAddress"] for node in _nodes()}
    if is_sqlite(backend.url) and len(machines) > 1:
        raise RayError(f"{len(machines)} machines cannot share the SQLite file of {backend}; use PostgreSQL")


def _knock(address: str) -> None:
    """Check that something listens there: Ray itself waits minutes for a missing head."""
    host, _, port = address.removeprefix("ray://").partition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise RayError(f"nothing listens at {address} ({error}); start Ray there with: ray start --head") from error


def plan(devices: str, workers: int | None) -> list[RaySlot]:
    """One slot for each worker that the cluster has room for: `devices` is auto or the key of a kind of device.

    Raises:
        NoSuchDeviceError: an unknown word, no such device in the cluster, or more workers than devices.
    """
    nodes = _nodes()
    counts = {kind: [int(node["Resources"].get(kind.shown, 0)) for node in nodes] for kind in KINDS}
    if devices == "auto":
        devices = next((kind for kind in reversed(ACCELERATORS) if any(counts[kind])), CPU).key
    kind = next((kind for kind in KINDS if kind.key == devices), None)
    if kind is None:
        raise NoSuchDeviceError(f"devices {devices!r} given; allowed with --on ray: {ANY_KIND}")
    there = [count for count in counts[kind] if count]
    most = sum(there) if kind in (CPU, GPU) else len(there)
    if not there or (workers or 1) > most:
        raise NoSuchDeviceError(
            f"{workers or 'some'} workers on {devices} asked for; the Ray cluster has room for {most}"
        )
    if kind is CPU:
        return _cpu_slots(there, workers or len(there))
    if kind is GPU:
        gpu = RaySlot("ray-gpu", "gpu:0", None, {}, resources={"num_gpus": 1})
        return [gpu] * (workers or most)
    # All chips of a host.
    host = RaySlot(f"ray-{kind.key}", kind.key, None, {}, resources={"resources": {kind.shown: max(there)}})
    return [host] * (workers or most)


def _cpu_slots(cores: Sequence[int], workers: int) -> list[RaySlot]:
    """All workers get the same number of threads, as many as leave room for each. Equal threads give equal values."""
    threads = next(t for t in range(max(cores), 0, -1) if sum(count // t for count in cores) >= workers)
    environment = {"CUDA_VISIBLE_DEVICES": "-1"}
    return [RaySlot("ray-cpu", "cpu", threads, environment, resources={"num_cpus": threads})] * workers


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]
