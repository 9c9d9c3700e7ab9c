"""What lies in the current folder, in the environment or under the standard streams decides nothing."""

import errno
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Start
from making import make, worker_for
from waiting import until

from affinity_search.search.devices.errors import UnfitMachineError
from affinity_search.search.devices.packages import without
from affinity_search.search.launch import children
from affinity_search.search.worker.stopping import StopSignals
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.places.claims import Places

AFFINITY_SEARCH = str(Path(sys.executable).parent / "affinity-search")
OURS = ("affinity_search", "search", "storage", "studies", "keras", "typer")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with files and a package of our names and our libraries', which tell when they are executed."""
    for name in OURS:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the current folder was executed')")
    (tmp_path / "optuna").mkdir()
    (tmp_path / "optuna" / "__init__.py").write_text("raise SystemExit('optuna of the current folder was executed')")
    return tmp_path


class TestTheCurrentFolder:
    @pytest.mark.parametrize("path", [None, "", ":", ".", f".{os.pathsep}"])
    def test_a_child_executes_nothing_of_it(
        self, hostile: Path, path: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
        if path is not None:
            monkeypatch.setenv("PYTHONPATH", path)
        command = [sys.executable, *children.COMMAND, "studies", "--json"]
        done = subprocess.run(
            command, cwd=hostile, env=children.surroundings(), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_other_folders_of_the_path_stay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "/mine", ".", "/yours"]))
        assert children.surroundings()["PYTHONPATH"] == os.pathsep.join(["/mine", "/yours"])

    def test_it_leaves_the_path_of_a_process_that_has_begun(
        self, hostile: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(hostile)
        monkeypatch.setattr(sys, "path", ["", str(hostile), "/elsewhere"])
        children.leave_out_current_folder()
        assert sys.path == ["/elsewhere"]


class TestTheMachinesFault:
    @pytest.mark.parametrize(
        "error",
        [
            ImportError("cannot import name 'ops' from 'keras' (keras.py)"),
            PermissionError(errno.EACCES, "Permission denied", "/data/mnist.npz"),
            OSError(errno.ENOSPC, "No space left on device"),
            UnfitMachineError("Keras' backend is torch"),
        ],
    )
    def test_it_spends_no_place_and_no_attempt(
        self, sqlite: Backend, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: object, **options: object) -> None:
            raise error

        study = make(sqlite)
        worker = worker_for(study)
        monkeypatch.setattr(worker.trainer, "epochs", fail)
        claim = worker.places.claim(worker.holder)
        assert claim is not None
        with pytest.raises(UnfitMachineError, match=r"keras|denied|No space|torch"):
            worker.run(claim, lambda: False)
        row = Places.of(study).rows()[0]
        assert (row.state, row.attempt) == (PlaceState.FREE, 0)


def test_keras_finds_no_matplotlib_and_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    with without("matplotlib"), pytest.raises(ImportError):
        import matplotlib.pyplot  # noqa: F401
    assert "matplotlib" not in sys.modules


def test_a_notebooks_backend_and_style_change_no_picture(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("backend: module://no_such\naxes.facecolor: red\nfont.size: 40\n")
    code = (
        "import hashlib\nfrom affinity_search.search.view.figures.canvas import png, subplots\n"
        "figure, (ax,) = subplots(1, 3, 3, 'a title')\nax.plot([1, 2])\n"
        "print(hashlib.sha256(png(figure)).hexdigest())"
    )

    def drawn(folder: Path, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], cwd=folder, env=os.environ | environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert drawn(tmp_path, MPLBACKEND="module://matplotlib_inline.backend_inline") == drawn(Path("/"))


class TestIgnoredSignals:
    @pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
    def test_they_stay_ignored(self, number: signal.Signals) -> None:
        before = signal.signal(number, signal.SIG_IGN)
        try:
            with StopSignals() as signals:
                os.kill(os.getpid(), number)
                assert not signals.draining
                assert signal.getsignal(number) == signal.SIG_IGN
        finally:
            signal.signal(number, before)

    def test_a_search_under_nohup_outlives_its_terminal(
        self, sqlite: Backend, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = make(sqlite)
        gate = tmp_path / "gate"
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what is started inherits it
        try:
            launch = start(
                "launch", "tiny", "--workers", "1", "--storage", str(sqlite), forked=False, FAKE_GATE=str(gate)
            )
        finally:
            signal.signal(signal.SIGHUP, before)
        held = until(lambda: Places.of(study).held(), "a trial")
        for pid in (launch.process.pid, held[0].pid):
            os.kill(pid, signal.SIGHUP)
        gate.touch()
        assert launch.ended() == 0, launch.said
        assert "4 of 4 trials done" in launch.said


def shell(line: str, **environment: str) -> tuple[int, str]:
    """Run by a shell, for its redirections; returns the exit code and what came out of both streams."""
    command = line.replace("affinity-search", shlex.quote(AFFINITY_SEARCH))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        env=os.environ | {"PYTHONUNBUFFERED": ""} | environment,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).decode()


class TestStreams:
    @pytest.mark.parametrize("command", ["studies", "export --schema", "--help"])
    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_data_that_cannot_be_written_is_one_line(self, command: str, unbuffered: str) -> None:
        full = "error: standard output cannot be written: No space left on device\n"
        assert shell(f"affinity-search {command} > /dev/full", PYTHONUNBUFFERED=unbuffered) == (1, full)

    def test_so_is_a_closed_stream(self) -> None:
        closed = "error: standard output cannot be written: Bad file descriptor\n"
        assert shell("affinity-search studies >&-") == (1, closed)
        assert shell("affinity-search studies >&- 2>&-") == (1, "")

    def test_a_reader_that_has_enough_hears_nothing_of_it(self) -> None:
        code, said = shell("affinity-search studies show digits 2>&1 | head -n 1")
        assert code in (0, 1)
        assert said.count("\n") == 1

    @pytest.mark.parametrize("lost", ["2>&-", "2>/dev/full"])
    def test_peoples_text_that_cannot_be_written_is_dropped(self, lost: str) -> None:
        code, said = shell(f"affinity-search studies show digits {lost}")
        assert (code, said.count("[training]")) == (0, 1)

    @pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
    def test_what_cannot_be_encoded_is_replaced(self, encoding: str) -> None:
        code, said = shell("affinity-search studies 2>&1 | cat -v", PYTHONIOENCODING=encoding)
        assert code == 0
        assert "Traceback" not in said
        assert "digits" in said

    def test_a_file_never_takes_the_place_of_a_closed_stream(self, sqlite: Backend, tmp_path: Path) -> None:
        """SQLite's would: then what is written to stderr would go into the database."""
        make(sqlite)
        code, said = shell(f"affinity-search status tiny --json --storage {sqlite} 2>&- <&-")
        assert code == 0
        assert '"study": "tiny"' in said

    def test_an_interrupt_while_it_starts_is_no_traceback(self) -> None:
        """Typer's import is slow enough to be hit."""
        code = (
            "import os, signal, sys\n"
            "sys.meta_path.insert(0, type('Interrupting', (), {'find_spec': staticmethod(\n"
            "    lambda name, *rest: os.kill(os.getpid(), signal.SIGINT) if name == 'typer' else None)}))\n"
            "from affinity_search.search.cli import main\nmain()"
        )
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (130, "")
