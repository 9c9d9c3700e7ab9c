"""`doctor` on the machine and the storage: what is found, what to do next, and no secret in either."""

import importlib.metadata
import io
import json
import sqlite3
from collections import namedtuple
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from conftest import Cli, Ran
from data_files import write_cifar, write_mnist
from making import TINY, make, open_study
from postgres_server import PASSWORD, SECRETIVE, Server, _free_port
from rich.console import Console
from sqlalchemy import update
from sqlalchemy.engine import make_url
from test_imports import RUN, TRAINING, loaded_after

from affinity_search.search import devices
from affinity_search.search.devices import nvidia
from affinity_search.search.doctor import machine
from affinity_search.search.doctor import storage as database
from affinity_search.search.doctor.check import Check
from affinity_search.search.doctor.view import show
from affinity_search.search.training.data.splits import load_train
from affinity_search.search.worker.images import StudyImages
from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend, open_backend
from affinity_search.storage.files import StudyFiles
from affinity_search.storage.study import load_study
from affinity_search.studies.data import SOURCES

SECRET = "hunter2%zz"
ON_MNIST = ("data={set='mnist',minority=4}",)
Usage = namedtuple("Usage", "total used free")

REAL_GPUS = nvidia.gpus


@pytest.fixture(autouse=True)
def _a_plain_machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No GPU, no TPU, and an empty cache of Keras'."""
    monkeypatch.setenv("KERAS_BACKEND", devices.backend())
    monkeypatch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
    monkeypatch.setattr("affinity_search.search.devices.nvidia.gpus", list)
    monkeypatch.delenv(nvidia.VISIBLE, raising=False)
    monkeypatch.setattr("affinity_search.search.devices.kinds.has_tpu", lambda: False)


def cards(*names: str, lost: tuple[int, ...] = ()) -> list[nvidia.Gpu]:
    """As NVML finds them; it cannot read the `lost` ones."""
    return [
        nvidia.Gpu(i, lost="GPU is lost") if i in lost else nvidia.Gpu(i, f"GPU-{i}", name)
        for i, name in enumerate(names)
    ]


def found(ran: Ran) -> dict[str, dict[str, Any]]:
    """The checks of a --json run by their names."""
    return {check["name"]: check for check in json.loads(ran.out)["checks"]}


def line(ran: Ran, name: str) -> str:
    """The line that a person reads about one check."""
    (one,) = [one for one in ran.out.splitlines() if one.partition("  ")[2].strip().startswith(f"{name}: ")]
    return one


class TestCommand:
    def test_a_fresh_machine_is_well_and_stays_untouched(self, cli: Cli, sqlite_url: str, tmp_path: Path) -> None:
        ran = cli("doctor", "--storage", sqlite_url)
        assert ran.err == ""
        assert {one.split()[0] for one in ran.out.splitlines()} == {"ok", "warning"}
        assert "`affinity-search launch STUDY` creates it" in line(ran, "storage")
        assert "Keras will download it" in line(ran, "data mnist")
        assert list(tmp_path.iterdir()) == []

    def test_json(self, cli: Cli, database_url: str, backend: Backend) -> None:
        make(backend)
        ran = cli("doctor", "tiny", "--json", "--storage", database_url)
        assert ran.err == ""
        whole = json.loads(ran.out)
        assert sorted(whole) == ["checks", "exit_code", "study"]
        assert whole["exit_code"] == 0
        assert all(sorted(check) == ["found", "name", "next", "status"] for check in whole["checks"])
        names = ["python", "packages", "devices", "data digits", "storage", "round trip", "clock", "writing", "files"]
        assert [check["name"] for check in whole["checks"]] == [*names, "places"]
        keys = ["counts", "halves", "held", "leftovers", "repaired", "spent", "study"]
        assert sorted(whole["study"]) == keys
        without = json.loads(cli("doctor", "--json", "--storage", database_url).out)
        assert without["study"] is None

    def test_a_study_that_is_not_there(self, cli: Cli, database_url: str, backend: Backend) -> None:
        make(backend)
        said = cli("doctor", "tinny", "--storage", database_url, fails=True).refused()
        assert "no study 'tinny'" in said
        assert "it holds tiny" in said

    def test_a_study_without_any_database(self, cli: Cli, sqlite_url: str) -> None:
        ran = cli("doctor", "tiny", "--json", "--storage", sqlite_url, fails=True)
        assert (ran.code, json.loads(ran.out)["study"]) == (1, None)
        assert found(ran)["storage"]["status"] == "failed"

    def test_it_imports_no_backend(self, sqlite: Backend, sqlite_url: str) -> None:
        make(sqlite)
        loaded = loaded_after(f"{RUN}\nrun('doctor', 'tiny', '--storage', {sqlite_url!r})")
        assert loaded.isdisjoint(set(TRAINING) - {"sklearn"})
        assert loaded_after(f"{RUN}\nrun('doctor', '--help')") == set()


def test_in_a_terminal_later_rows_stand_under_the_text() -> None:
    out = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=40)
    show(out, Check("data [mnist]", "warning", "not in the cache of this machine", "download it first"))
    printed = out.file.getvalue()  # type: ignore[attr-defined]
    assert [row.rstrip() for row in printed.splitlines()] == [
        "warning  data [mnist]: not in the cache",
        "         of this machine; download it",
        "         first",
    ]


class TestPackages:
    @pytest.fixture
    def lacking(self, monkeypatch: pytest.MonkeyPatch) -> set[str]:
        """Packages in it are not installed; a name that is, as `tensorflow`, can be hidden by the same means."""
        lacking: set[str] = set()
        version = importlib.metadata.version

        def look(package: str) -> str:
            if package in lacking:
                raise importlib.metadata.PackageNotFoundError(package)
            return version(package) if package not in ("tensorflow-cpu", "tensorflow-tpu") else "2.21.0"

        monkeypatch.setattr(importlib.metadata, "version", look)
        monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
        return lacking

    TENSORFLOWS = frozenset({"tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tensorflow-intel"})

    @pytest.mark.parametrize(
        ("gpus", "tpu", "extra"), [([], False, "cpu"), (["NVIDIA Test"], False, "gpu"), ([], True, "tpu")]
    )
    def test_the_missing_backend_names_the_fitting_extra(
        self, lacking: set[str], monkeypatch: pytest.MonkeyPatch, gpus: list[str], tpu: bool, extra: str
    ) -> None:
        lacking |= self.TENSORFLOWS
        monkeypatch.setattr("affinity_search.search.devices.nvidia.gpus", lambda: cards(*gpus))
        monkeypatch.setattr("affinity_search.search.devices.kinds.has_tpu", lambda: tpu)
        check = machine.check_packages(None)
        assert (check.status, check.next) == ("failed", f"pip install 'affinity-search[{extra}]'")
        lacking.add("psycopg")
        assert machine.check_packages("psycopg").next == f"pip install 'affinity-search[{extra},postgres]'"

    def test_the_command_fails_by_it(self, lacking: set[str], cli: Cli, sqlite_url: str) -> None:
        lacking |= self.TENSORFLOWS
        ran = cli("doctor", "--storage", sqlite_url, fails=True)
        assert ran.code == 1
        assert line(ran, "packages").endswith("; pip install 'affinity-search[cpu]'")

    def test_others(self, lacking: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
        assert "psycopg " in machine.check_packages("psycopg").found
        assert "psycopg " not in machine.check_packages(None).found
        lacking |= {"sqlalchemy", "jax"}
        assert machine.check_packages(None).next == "pip install sqlalchemy"
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        assert machine.check_packages(None).next == "pip install jax, or set KERAS_BACKEND=tensorflow"
        monkeypatch.setenv("KERAS_BACKEND", "tenserflow")
        check = machine.check_packages(None)
        assert "'tenserflow'" in check.found
        assert "set KERAS_BACKEND" in str(check.next)

    @pytest.mark.parametrize(
        ("version", "status"),
        [((3, 10, 9), "failed"), ((3, 11, 0), "ok"), ((3, 13, 5), "ok"), ((3, 14, 0), "failed")],
    )
    def test_python(self, version: tuple[int, ...], status: str) -> None:
        assert machine.check_python(version).status == status

    def test_a_gpu_that_the_installed_build_cannot_use(
        self, lacking: set[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lacking |= self.TENSORFLOWS - {"tensorflow-cpu"}
        monkeypatch.setattr("affinity_search.search.devices.nvidia.gpus", lambda: cards("NVIDIA Test", "NVIDIA Test"))
        check = machine.check_devices()
        assert check.status == "warning"
        assert "2 × NVIDIA Test" in check.found
        assert "pip install 'affinity-search[gpu]'" in str(check.next)
        lacking ^= {"tensorflow", "tensorflow-cpu"}
        assert machine.check_devices().status == "ok"

    def test_a_tpu_that_the_installed_build_cannot_use(
        self, lacking: set[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("affinity_search.search.devices.kinds.has_tpu", lambda: True)
        assert machine.check_devices().status == "ok"
        lacking.add("tensorflow-tpu")
        assert "affinity-search[tpu]" in str(machine.check_devices().next)

    def test_a_gpu_that_is_lost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "affinity_search.search.devices.nvidia.gpus", lambda: cards("NVIDIA Test", "NVIDIA Test", lost=(1,))
        )
        check = machine.check_devices()
        assert (check.status, check.next) == ("warning", machine.MEND_DRIVER)
        assert check.found.startswith("1 × NVIDIA Test, gpu:1 lost (GPU is lost), no TPU, ")
        monkeypatch.setattr("affinity_search.search.devices.nvidia.gpus", lambda: cards("NVIDIA Test", lost=(0,)))
        assert machine.check_devices().status == "failed"
        assert machine.probe().found.startswith("not tried: NVML answers for no GPU (gpu:0: GPU is lost)")

    def test_gpus_that_the_environment_hides(self, lacking: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
        lacking |= self.TENSORFLOWS - {"tensorflow"}
        monkeypatch.setattr("affinity_search.search.devices.nvidia.gpus", lambda: cards("NVIDIA Test", "NVIDIA Test"))
        for value, shown in (("1", "gpu:1"), ("-1", "none")):
            monkeypatch.setenv(nvidia.VISIBLE, value)
            check = machine.check_devices()
            assert check.status == "ok"
            assert f"2 × NVIDIA Test, CUDA_VISIBLE_DEVICES '{value}' shows {shown}, no TPU" in check.found

    def test_a_driver_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import pynvml

        def fail() -> int:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

        monkeypatch.setattr("affinity_search.search.devices.nvidia.gpus", REAL_GPUS)
        for call in ("nvmlInit", "nvmlShutdown"):
            monkeypatch.setattr(pynvml, call, lambda: None)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", fail)
        assert "check the driver with nvidia-smi" in machine.check_devices().found
        assert machine.probe().status == "failed"


class TestProbe:
    @pytest.mark.long
    def test_the_device_computes(self, cli: Cli, sqlite_url: str) -> None:
        assert "computed on cpu" in line(cli("doctor", "--probe", "--storage", sqlite_url), "probe")

    def test_one_that_does_not(self, cli: Cli, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "PROBE", "import sys; sys.exit('more\\nno CUDA here')")
        ran = cli("doctor", "--probe", "--storage", sqlite_url, fails=True)
        assert ran.code == 1
        assert "on cpu: no CUDA here; " in line(ran, "probe")

    def test_one_that_never_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "PROBE", "import time; time.sleep(60)")
        monkeypatch.setattr(machine, "PROBE_LIMIT_S", 0.1)
        assert "no answer" in machine.probe().found


class TestData:
    def test_a_data_dir_without_the_sets(self, cli: Cli, sqlite_url: str, tmp_path: Path) -> None:
        at = ("--storage", sqlite_url, "--data-dir", str(tmp_path))
        ran = cli("doctor", *at, fails=True)
        assert ran.code == 1
        assert f"failed   data mnist: not in {tmp_path}; put the files there, " in line(ran, "data mnist")
        assert line(ran, "data cifar10").startswith("failed")
        assert line(ran, "data digits").startswith("ok"), "it is part of scikit-learn"
        write_mnist(tmp_path)
        ran = cli("doctor", *at)
        assert line(ran, "data mnist").startswith("ok       data mnist: 40 training and 40 test images, read from ")
        assert line(ran, "data cifar10").startswith("warning"), "a folder need not hold every set"
        whole = (tmp_path / "mnist.npz").read_bytes()
        (tmp_path / "mnist.npz").write_bytes(whole[: len(whole) // 2])
        assert "failed   data mnist: " in line(cli("doctor", *at, fails=True), "data mnist")

    def test_the_parts_that_a_study_needs_are_enough(self, sqlite: Backend, tmp_path: Path) -> None:
        write_cifar(tmp_path, n=400)  # without test_batch
        study, _ = open_study(sqlite, TINY, overrides=["data.set=cifar10", "data.minority=20"])
        (check,) = machine.check_data(study.spec, tmp_path, study)
        assert (check.status, "validation images" in check.found) == ("ok", True), check

    def test_other_images_than_the_study_s(self, sqlite: Backend, tmp_path: Path) -> None:
        write_mnist(tmp_path, n=400)
        study = make(sqlite, overrides=ON_MNIST)
        StudyImages(study, tmp_path, print)("train", load_train(SOURCES["mnist"], tmp_path))
        labels = np.arange(400) % 9
        write_mnist(tmp_path, n=400, y_train=labels.astype(np.uint8))
        (check,) = machine.check_data(study.spec, tmp_path, load_study(sqlite, "tiny"))
        assert (check.status, "images of class 0 instead of" in check.found) == ("failed", True)

    def test_a_data_dir_that_is_not_there(self, cli: Cli, sqlite_url: str) -> None:
        assert cli("doctor", "--data-dir", "/no/such/folder", "--storage", sqlite_url, fails=True).code == 2

    @pytest.mark.parametrize("cached", [False, True])
    def test_the_study_s_set_is_read(
        self, cli: Cli, sqlite: Backend, sqlite_url: str, tmp_path: Path, cached: bool
    ) -> None:
        make(sqlite, overrides=ON_MNIST)
        folder = devices.keras_home() / "datasets" if cached else tmp_path
        folder.mkdir(exist_ok=True)
        at = ("doctor", "tiny", "--storage", sqlite_url, *(() if cached else ("--data-dir", str(tmp_path))))
        write_mnist(folder, n=400)
        assert "images, read from " in line(cli(*at), "data mnist")
        (folder / "mnist.npz").write_bytes(b"half a download")
        ran = cli(*at, fails=True)
        assert ran.code == 1
        assert f"{folder / 'mnist.npz'} is not a readable mnist.npz" in line(ran, "data mnist")

    def test_the_test_images_stay_closed_under_holdout(self, sqlite: Backend, tmp_path: Path) -> None:
        write_mnist(tmp_path, n=400, x_test=b"no images")
        holdout, _ = open_study(sqlite, TINY, overrides=ON_MNIST)
        assert [check.status for check in machine.check_data(holdout.spec, tmp_path)] == ["ok"]
        article, _ = open_study(sqlite, TINY, name="a", overrides=("protocol=article", *ON_MNIST))
        assert [check.status for check in machine.check_data(article.spec, tmp_path)] == ["failed"]

    def test_too_few_images(self, sqlite: Backend, tmp_path: Path) -> None:
        write_mnist(tmp_path, n=40)
        (check,) = machine.check_data(make(sqlite, overrides=ON_MNIST).spec, tmp_path)
        assert (check.status, check.name) == ("failed", "data mnist")
        assert "change the study's `minority`" in check.found


class TestStorage:
    def test_it_answers_and_takes_writes(self, cli: Cli, database_url: str, backend: Backend) -> None:
        ran = cli("doctor", "--storage", database_url)
        assert line(ran, "storage").startswith("ok")
        assert line(ran, "round trip").endswith(" ms")
        assert line(ran, "writing") == "ok       writing: the database takes writes"

    @pytest.mark.parametrize("study", [(), ("tiny",)])
    def test_a_wrong_password_is_not_shown(self, cli: Cli, postgres: Server, study: tuple[str, ...]) -> None:
        ran = cli("doctor", *study, "--storage", postgres.url("postgres", SECRETIVE, SECRET), fails=True)
        assert ran.code == 1
        assert f"refused user '{SECRETIVE}' or its password" in line(ran, "storage")
        assert not any(secret in ran.out + ran.err for secret in (SECRET, quote(SECRET, safe="")))

    def test_the_right_password_is_not_shown_either(self, cli: Cli, postgres: Server) -> None:
        url = postgres.url(postgres.fresh_database(SECRETIVE), SECRETIVE, PASSWORD)
        open_backend(url, create=True).close()
        for options in ((), ("--json",)):
            ran = cli("doctor", "--storage", url, *options)
            assert "postgresql://secretive:***@127.0.0.1" in ran.out + ran.err
            assert not any(secret in ran.out + ran.err for secret in (PASSWORD, quote(PASSWORD, safe="")))

    def test_nothing_listens(self, cli: Cli) -> None:
        ran = cli("doctor", "--storage", f"postgresql://u@127.0.0.1:{_free_port()}/x", fails=True)
        assert "nothing listens at 127.0.0.1" in line(ran, "storage")

    @pytest.mark.parametrize("url", ["studies.db", "redis://localhost", "sqlite://"])
    def test_urls_that_cannot_be_meant(self, cli: Cli, url: str) -> None:
        ran = cli("doctor", "--storage", url, fails=True)
        assert ran.code == 1
        assert line(ran, "storage").startswith("failed")

    def test_a_newer_schema(self, cli: Cli, database_url: str, backend: Backend) -> None:
        with backend.engine.begin() as connection:
            connection.execute(update(tables.schema).values(version=tables.SCHEMA_VERSION + 1))
        ran = cli("doctor", "--storage", database_url, fails=True)
        assert ran.code == 1
        assert "update affinity-search on this machine" in line(ran, "storage")

    def test_a_server_that_is_a_read_only_copy(self, cli: Cli, postgres: Server) -> None:
        name = postgres.fresh_database()
        open_backend(postgres.url(name), create=True).close()
        postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        ran = cli("doctor", "--storage", postgres.url(name), fails=True)
        assert ran.code == 1
        assert "read-only transaction; check the permissions" in line(ran, "writing")

    def test_a_file_that_another_program_locks(
        self, cli: Cli, sqlite: Backend, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "WRITE_TRIES", 1)
        other = sqlite3.connect(str(make_url(sqlite_url).database), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        ran = cli("doctor", "--storage", sqlite_url, fails=True)
        other.close()
        assert "another program has been locking the database" in line(ran, "writing")

    @pytest.mark.parametrize(
        ("ahead_s", "status", "said"),
        [
            (0.5, "ok", "differ by 0.5 s"),
            (3, "warning", "3.0 s ahead of this machine's"),
            (-60, "warning", "60.0 s behind this machine's"),
        ],
    )
    def test_clocks_that_differ(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch, ahead_s: float, status: str, said: str
    ) -> None:
        theirs = Backend.time
        monkeypatch.setattr(Backend, "time", lambda self: theirs(self) + ahead_s)
        clock = {check.name: check for check in database.check_database(backend)}["clock"]
        assert (clock.status, said in clock.found) == (status, True), clock


class TestFiles:
    def test_a_folder_that_is_yet_to_be_made(self, cli: Cli, sqlite_url: str, tmp_path: Path) -> None:
        ran = cli("doctor", "--files", str(tmp_path / "a" / "b"), "--storage", sqlite_url)
        assert f"{tmp_path}/a/b (made when needed)" in line(ran, "files")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("study", [(), ("tiny",)])
    def test_a_file_in_the_folder_s_way(
        self, cli: Cli, sqlite: Backend, sqlite_url: str, tmp_path: Path, study: tuple[str, ...]
    ) -> None:
        make(sqlite)
        (tmp_path / "file").touch()
        ran = cli("doctor", *study, "--files", str(tmp_path / "file" / "x"), "--storage", sqlite_url, fails=True)
        assert ran.code == 1
        assert f"{tmp_path}/file cannot be written (Not a directory)" in line(ran, "files")
        assert "training goes on without checkpoints" in line(ran, "files")

    def test_little_room(self, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        study = make(backend)

        def check(free: float) -> Check:
            monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(0, 0, int(free)))
            return database.check_files(tmp_path, study)

        assert check(2 * database.GIB).status == "ok"
        assert "make room for 1.0 GiB" in str(check(0.5 * database.GIB).next)
        checkpoints = StudyFiles(tmp_path, study.token).checkpoints
        checkpoints.mkdir(parents=True)
        with (checkpoints / "0.npz").open("wb") as file:
            file.truncate(12 * 10**9)  # a sparse file: it takes no room
        full = check(200 * database.GIB)
        assert "a checkpoint takes 11444.1 MiB" in full.found
        assert "make room for 223.5 GiB" in str(full.next), "20 checkpoints of 11.2 GiB"
        assert check(224 * database.GIB).status == "ok"

    def test_before_the_first_checkpoint_nothing_is_said_of_its_size(self, backend: Backend, tmp_path: Path) -> None:
        assert "checkpoint" not in database.check_files(tmp_path, make(backend)).found
