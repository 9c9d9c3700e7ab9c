"""Devices and their workers, with NVIDIA's library replaced by a named fake: no test machine has such cards."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from search import accelerators
from search.accelerators import NoSuchDeviceError, plan, trouble


class FakeNvml:
    """In place of pynvml: `names` are the cards; None means that no driver is there."""

    class NVMLError(Exception):
        """As pynvml's."""

    def __init__(self, names: list[str] | None) -> None:
        self.names = names
        self.free_mib = 70_000
        self.lost = False
        self.open = False

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
        if self.names is None:
            raise self.NVMLError("Driver Not Loaded")
        self.open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        assert self.names is not None
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if self.lost:
            raise self.NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=80_000 << 20, free=self.free_mib << 20)

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        assert self.names is not None
        return self.names[handle]


@pytest.fixture(autouse=True)
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """Four cards and no TPU, unless a test changes it; ten cores."""
    fake = FakeNvml([f"NVIDIA Test {i}" for i in range(4)])
    monkeypatch.setitem(__import__("sys").modules, "pynvml", fake)
    monkeypatch.setattr(accelerators, "has_tpu", lambda: False)
    monkeypatch.setattr(accelerators, "cpu_cores", lambda: 10)
    return fake


def test_one_worker_on_each_gpu_which_it_sees_alone(nvml: FakeNvml) -> None:
    slots = plan("gpu", None)
    assert [slot.label for slot in slots] == ["gpu:0", "gpu:1", "gpu:2", "gpu:3"]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "1", "2", "3"]
    assert {slot.environment["CUDA_DEVICE_ORDER"] for slot in slots} == {"PCI_BUS_ID"}
    assert {slot.device for slot in slots} == {"gpu:0"}
    assert not nvml.open


def test_several_workers_share_a_gpu_s_memory() -> None:
    slots = plan("gpu:1,3", None, per_device=2)
    assert [slot.label for slot in slots] == ["gpu:1", "gpu:1", "gpu:3", "gpu:3"]
    assert {slot.memory_mib for slot in slots} == {36_000}, "nine tenths, halved"
    assert {slot.environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] for slot in slots} == {"0.450"}
    alone = plan("gpu", None)[0]
    assert alone.memory_mib is None, "one worker takes what it needs"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in alone.environment


@pytest.mark.parametrize("devices", ["cpu", "tpu"])
def test_only_gpus_are_shared(devices: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoSuchDeviceError, match=f"--workers-per-device 2 given for {devices}: only GPUs"):
        plan(devices, None, per_device=2)


def test_tpus_by_name_have_a_worker_each(nvml: FakeNvml) -> None:
    slots = plan("tpu", None, tpus=["first", "second"])
    assert [(slot.label, slot.device) for slot in slots] == [("tpu:first", "tpu"), ("tpu:second", "tpu")]
    assert [slot.environment["TPU_NAME"] for slot in slots] == ["first", "second"]
    assert plan("auto", None, tpus=["first"])[0].label == "tpu:first"
    with pytest.raises(NoSuchDeviceError, match="--tpu first given for gpu"):
        plan("gpu", None, tpus=["first"])


class TestTrouble:
    """What a launcher asks before it starts a worker."""

    def test_none(self) -> None:
        assert trouble(plan("gpu:2", None)[0]) is None
        assert trouble(plan("cpu", None)[0]) is None

    def test_a_full_gpu(self, nvml: FakeNvml) -> None:
        slot = plan("gpu:2", None)[0]
        nvml.free_mib = 300
        assert trouble(slot) == "gpu:2 is full: 300 MiB free of 80000; see nvidia-smi for who uses it"

    def test_a_gpu_that_has_disappeared(self, nvml: FakeNvml) -> None:
        slot = plan("gpu:2", None)[0]
        nvml.names = ["the only one left"]
        assert "gpu:2 has disappeared: NVML finds 1 GPUs" in str(trouble(slot))
        nvml.lost = True
        assert "GPU is lost" in str(trouble(slot))
        with pytest.raises(NoSuchDeviceError, match="look at nvidia-smi"):
            plan("auto", None)


def test_chosen_gpus() -> None:
    slots = plan("gpu:0,2", None)
    assert [(slot.label, slot.environment["CUDA_VISIBLE_DEVICES"]) for slot in slots] == [
        ("gpu:0", "0"),
        ("gpu:2", "2"),
    ]


@pytest.mark.parametrize("devices", ["gpu:4", "gpu:0,9", "gpu:-1", "gpu:one", "gpu:0,0", "gpu:0,,1", "gpu:1.5"])
def test_gpus_that_are_not_there(devices: str) -> None:
    with pytest.raises(NoSuchDeviceError, match=f"{devices} given; this machine has GPUs 0 to 3, each named once"):
        plan(devices, None)


@pytest.mark.parametrize("devices", ["cuda", "gpus", "tpu:0", "", "CPU", "cpu:1"])
def test_unknown_words(devices: str) -> None:
    with pytest.raises(NoSuchDeviceError, match="allowed: auto, cpu, gpu, gpu:0,2"):
        plan(devices, None)


@pytest.mark.parametrize("cards", [None, []])
def test_no_gpu(nvml: FakeNvml, cards: list[str] | None) -> None:
    nvml.names = cards
    assert accelerators.gpu_names() == []
    with pytest.raises(NoSuchDeviceError, match="no NVIDIA GPU found by NVML"):
        plan("gpu", None)
    assert [slot.label for slot in plan("auto", None)] == ["cpu"]


def test_auto_takes_gpus_then_a_tpu_then_the_cpu(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(plan("auto", None)) == 4
    nvml.names = None
    monkeypatch.setattr(accelerators, "has_tpu", lambda: True)
    assert [(slot.label, slot.device) for slot in plan("auto", None)] == [("tpu", "tpu")]
    monkeypatch.setattr(accelerators, "has_tpu", lambda: False)
    with pytest.raises(NoSuchDeviceError, match="no TPU found"):
        plan("tpu", None)


@pytest.mark.parametrize(("workers", "threads"), [(None, 10), (1, 10), (3, 3), (4, 2), (10, 1), (25, 1)])
def test_cpu_workers_share_the_cores(workers: int | None, threads: int) -> None:
    slots = plan("cpu", workers)
    assert len(slots) == (workers or 1)
    assert {slot.threads for slot in slots} == {threads}
    assert {slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots} == {"-1"}, "no card is touched"


def test_numbers_of_workers_that_make_no_sense() -> None:
    with pytest.raises(NoSuchDeviceError, match="--workers 3 given for gpu:0,2, where 2 run"):
        plan("gpu:0,2", 3)
    assert len(plan("gpu:0,2", 2)) == 2
    with pytest.raises(NoSuchDeviceError, match="a whole number from 1"):
        plan("cpu", -1)


class TestThisMachine:
    @pytest.fixture(autouse=True)
    def _as_it_is(self, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()

    def test_cores_are_those_that_this_process_may_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert 1 <= accelerators.cpu_cores() <= (psutil.cpu_count() or 1)
        monkeypatch.delattr(psutil.Process, "cpu_affinity")
        assert accelerators.cpu_cores() == psutil.cpu_count()

    def test_a_tpu_by_its_name_or_its_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TPU_NAME", raising=False)
        monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
        monkeypatch.setattr(Path, "exists", lambda self: False)
        assert not accelerators.has_tpu()
        monkeypatch.setenv("TPU_NAME", "a-tpu")
        assert accelerators.has_tpu()
