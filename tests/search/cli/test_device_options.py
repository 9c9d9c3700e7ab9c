"""From a command's options to the device that a worker configures: a link that breaks in between shows nowhere else."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from fake_objective import UNCLAIMED
from making import TINY, make

from affinity_search.search.devices import Device
from affinity_search.search.devices.nvidia import VISIBLE, Gpu
from affinity_search.search.devices.slots import Slot, plan
from affinity_search.search.launch.launcher import Launcher
from affinity_search.search.launch.process import WorkerProcess
from affinity_search.search.worker.exits import Exit
from affinity_search.storage.database.backend import Backend

GPUS = (Gpu(0, lost="GPU is lost"), Gpu(1, "GPU-b", "NVIDIA Test", 80_000, 70_000), Gpu(2, "GPU-c", "NVIDIA Test"))


@pytest.fixture(autouse=True)
def _three_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of which is lost."""
    monkeypatch.setattr("affinity_search.search.devices.nvidia.gpus", lambda: list(GPUS))
    monkeypatch.setenv("TPU_NAME", "")  # whatever a command sets is taken back
    monkeypatch.setenv(VISIBLE, "0,1,2")


@pytest.fixture
def configured(fake_training: None, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What workers in this process asked of their device, and the environment in which they did."""
    asked: list[dict[str, Any]] = []

    def configure(device: str, threads: int | None = None, memory_mib: int | None = None) -> Device:
        environment = {name: os.environ[name] for name in (VISIBLE, "TPU_NAME")}
        asked.append({"device": device, "threads": threads, "memory_mib": memory_mib, **environment})
        return UNCLAIMED

    monkeypatch.setattr("affinity_search.search.devices.configure", configure)
    return asked


class TestWorker:
    def run(self, cli: Cli, url: str, *options: str) -> None:
        cli("worker", *options, "--trials", "1", "--storage", url, "--", TINY)

    def test_a_share_of_a_gpu_arrives(
        self, cli: Cli, sqlite: Backend, sqlite_url: str, tmp_path: Path, configured: list[dict[str, Any]]
    ) -> None:
        make(sqlite, trials=1)
        (slot, _) = plan("gpu:1", None, per_device=2)
        safe, python, search, worker, *options = WorkerProcess(slot, tmp_path).new_command()
        assert (safe, python, search, worker) == ("-P", "-m", "affinity_search", "worker")
        self.run(cli, sqlite_url, *options)
        (asked,) = configured
        assert (asked["device"], asked["memory_mib"], asked["threads"]) == ("gpu:0", 36_000, None)

    def test_so_do_threads_and_no_share(
        self, cli: Cli, sqlite: Backend, sqlite_url: str, tmp_path: Path, configured: list[dict[str, Any]]
    ) -> None:
        make(sqlite, trials=1)
        self.run(cli, sqlite_url, *WorkerProcess(Slot("cpu", "cpu", 3, {}), tmp_path).new_command()[4:])
        (asked,) = configured
        assert (asked["device"], asked["memory_mib"], asked["threads"]) == ("cpu", None, 3)

    def test_a_gpu_by_its_number_is_the_framework_s(
        self, cli: Cli, sqlite_url: str, configured: list[dict[str, Any]]
    ) -> None:
        self.run(cli, sqlite_url, "--device", "gpu:1")
        (asked,) = configured
        assert (asked["device"], asked["memory_mib"], asked[VISIBLE]) == ("gpu:1", None, "0,1,2")

    def test_auto_sees_the_first_gpu_that_answers_alone(
        self, cli: Cli, sqlite_url: str, configured: list[dict[str, Any]]
    ) -> None:
        self.run(cli, sqlite_url)
        (asked,) = configured
        assert (asked["device"], asked[VISIBLE]) == ("gpu:0", "GPU-b")

    def test_a_tpu_by_its_name(self, cli: Cli, sqlite_url: str, configured: list[dict[str, Any]]) -> None:
        self.run(cli, sqlite_url, "--tpu", "far-away")
        (asked,) = configured
        assert (asked["device"], asked["TPU_NAME"]) == ("tpu", "far-away")


class TestLaunch:
    @pytest.fixture
    def slots(self, monkeypatch: pytest.MonkeyPatch) -> list[Slot]:
        """Those of the launcher, which starts nothing."""
        found: list[Slot] = []

        def run(self: Launcher, signals: object) -> Exit:
            found.extend(worker.slot for worker in self.workers)
            return Exit.DONE

        monkeypatch.setattr(Launcher, "run", run)
        return found

    def labels(self, slots: Sequence[Slot]) -> list[str]:
        return [slot.label for slot in slots]

    def test_each_named_tpu_has_a_worker(self, cli: Cli, sqlite_url: str, slots: list[Slot]) -> None:
        ran = cli("launch", TINY, "--tpu", "A", "--tpu", "B", "--storage", sqlite_url)
        assert "2 workers on tpu:A, tpu:B; logs in" in ran.err
        assert [(slot.device, slot.environment) for slot in slots] == [("tpu", {"TPU_NAME": name}) for name in "AB"]

    def test_a_tpu_named_twice_is_refused(self, cli: Cli, sqlite_url: str, slots: list[Slot]) -> None:
        ran = cli("launch", TINY, "--tpu", "A", "--tpu", "A", "--storage", sqlite_url, fails=True)
        assert ran.refused(Exit.UNFIT_DEVICE) == "--tpu A given twice; a TPU has one worker, so name each once"

    def test_gpus_are_shared(self, cli: Cli, sqlite_url: str, slots: list[Slot]) -> None:
        cli("launch", TINY, "--devices", "gpu:1", "--workers-per-device", "2", "--storage", sqlite_url)
        assert [(slot.label, slot.memory_mib) for slot in slots] == [("gpu:1", 36_000)] * 2

    def test_a_lost_gpu_is_one_line(self, cli: Cli, sqlite_url: str, slots: list[Slot]) -> None:
        ran = cli("launch", TINY, "--storage", sqlite_url)
        assert [line for line in ran.err.splitlines() if "GPU is lost" in line] == [
            "gpu:0 is left out: NVML does not answer for it (GPU is lost); check it with nvidia-smi"
        ]
        assert self.labels(slots) == ["gpu:1", "gpu:2"]

    def test_a_hidden_gpu_cannot_be_named(
        self, cli: Cli, sqlite_url: str, slots: list[Slot], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VISIBLE, "2")
        cli("launch", TINY, "--storage", sqlite_url)
        assert self.labels(slots) == ["gpu:2"]
        line = cli("launch", TINY, "--devices", "gpu:1", "--storage", sqlite_url, fails=True).refused(Exit.UNFIT_DEVICE)
        assert line.startswith("gpu:1 given, but CUDA_VISIBLE_DEVICES is '2' and hides gpu:1; unset it")
