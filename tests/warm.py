"""Commands without their second of imports: a process that has imported everything once forks itself for each of them.

What it forks is a process like any other, with a pid, signals, a session and an exit code of its own; only the parent
is another. Between it and the command a keeper waits for the command's end and tells its exit code to who began it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

# In the environment: where the process that forks listens. A command started by it finds it there too.
ADDRESS = "FAKE_WARM"
TRAINING = "--training"  # for the process that forks: workers are to train really


@contextlib.contextmanager
def warm_process(*options: str) -> Iterator[str]:
    """Start the process that forks; yields its address. It ends with the context, and with this process.

    With `TRAINING` it imports Keras too, and its commands have no fake in them.
    """
    with tempfile.TemporaryDirectory(prefix="affinity-search-warm-") as folder:
        address = str(Path(folder) / "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            command = [sys.executable, "-u", __file__, str(listener.fileno()), *options]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])
        yield address
        process.communicate(timeout=30)  # closes its stdin


class Warm:
    """In place of subprocess.Popen for `PYTHON -P -m MODULE …`, as far as our tests and the launcher use it."""

    def __init__(
        self,
        args: Sequence[str],
        *,
        stdout: IO[bytes],
        stderr: IO[bytes] | int,
        env: dict[str, str],
        stdin: int = subprocess.DEVNULL,
        start_new_session: bool = True,
    ) -> None:
        assert (list(args[1:3]), stdin, start_new_session) == (["-P", "-m"], subprocess.DEVNULL, True), args
        self.args = args
        self.returncode: int | None = None
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(env[ADDRESS])
        errors = stdout if isinstance(stderr, int) else stderr
        socket.send_fds(self._connection, [b"\n"], [stdout.fileno(), errors.fileno()])
        request = {"module": args[3], "arguments": args[4:], "environment": env, "folder": str(Path.cwd())}
        self._answers = self._connection.makefile("rw")
        print(json.dumps(request), file=self._answers, flush=True)
        self.pid = int(self._answers.readline())

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


# For a module that says `subprocess.Popen`.
subprocess_but_warm: Any = SimpleNamespace(**vars(subprocess) | {"Popen": Warm})


def _serve(listener: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; returns it in the new process, and None at the end in this one."""
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # keepers that have ended
                pass
        connection, _ = listener.accept()
        with connection:
            if os.fork() == 0:
                listener.close()
                return _begin(connection)
    return None


def _begin(connection: socket.socket) -> dict[str, Any]:
    """Fork the command's process, in which this returns its request, and be its keeper."""
    _, files, _, _ = socket.recv_fds(connection, 1, 2)
    with connection.makefile("rw") as told:
        request: dict[str, Any] = json.loads(told.readline())
        pid = os.fork()
        if pid == 0:
            _become(request, files)
            return request
        for file in files:
            os.close(file)
        print(pid, file=told, flush=True)
        with contextlib.suppress(BrokenPipeError):  # who wanted to know may have been killed
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=told, flush=True)
        os._exit(0)


def _become(request: dict[str, Any], files: Sequence[int]) -> None:
    """What a new process has of its own."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((null, *files)):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])


def _import_everything() -> None:
    """All but what trains; some of it is imported by the first use alone."""
    import psycopg  # noqa: F401
    from making import trained

    import affinity_search.search.cli.app
    import affinity_search.search.launch.launcher  # noqa: F401
    from affinity_search.search.view.terminal import progress_for
    from affinity_search.storage.database.backend import open_backend

    with tempfile.TemporaryDirectory() as folder:
        opened = open_backend(f"sqlite:///{folder}/warm.db", create=True)
        progress_for(trained(opened), str)
        opened.close()


def _import_training() -> None:
    """Import, and compute nothing: TensorFlow's threads would not survive a fork.

    TensorFlow as a worker imports it: what it computes with is settled then (oneDNN on a CPU without AVX-512).
    """
    import sklearn.datasets
    import sklearn.metrics
    import sklearn.model_selection  # noqa: F401

    from affinity_search.search import devices

    devices.import_ahead()


def main() -> None:
    """Be the process that forks; in each fork, what `python -m` would do with a module that we fake or know."""
    import contender
    import fake_command

    _import_everything()
    if TRAINING in sys.argv:
        _import_training()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        if TRAINING in sys.argv:
            fake_command.run_really(request["arguments"])
        else:
            {"affinity_search": fake_command, "contender": contender}[request["module"]].main(request["arguments"])


if __name__ == "__main__":
    main()
