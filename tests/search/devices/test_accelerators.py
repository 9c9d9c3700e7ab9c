"""Devices and their workers, with NVIDIA's library replaced by a named fake."""

import os
import socket
from pathlib import Path

import psutil
import pytest
from fake_nvml import FakeNvml

from affinity_search.search.devices import kinds, nvidia
from affinity_search.search.devices import slots as accelerators
from affinity_search.search.devices.kinds import Kind
from affinity_search.search.devices.nvidia import VISIBLE, NoSuchDeviceError, card
from affinity_search.search.devices.slots import plan, trouble


@pytest.fixture(autouse=True)
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """Four cards, all of them shown, and no TPU, unless a test changes it; ten cores."""
    fake = FakeNvml([f"NVIDIA Test {letter}" for letter in "abcd"])
    monkeypatch.setitem(__import__("sys").modules, "pynvml", fake)
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr(kinds, "has_tpu", lambda: False)
    monkeypatch.setattr(accelerators, "cpu_cores", lambda: 10)
    return fake


def test_one_worker_on_each_gpu_which_it_sees_alone(nvml: FakeNvml) -> None:
    slots = plan("gpu", None)
    assert [slot.label for slot in slots] == ["gpu:0", "gpu:1", "gpu:2", "gpu:3"]
    uuids = ["GPU-a-fake", "GPU-b-fake", "GPU-c-fake", "GPU-d-fake"]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == [slot.uuid for slot in slots] == uuids
    assert {slot.device for slot in slots} == {"gpu:0"}
    assert not nvml.open


def test_an_older_pynvml_answers_with_bytes(nvml: FakeNvml) -> None:
    nvml.bytes = True
    assert plan("gpu:1", None)[0].uuid == "GPU-b-fake"
    assert nvidia.gpus()[1].name == "NVIDIA Test b"


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
    with pytest.raises(NoSuchDeviceError, match="--tpu first given with --devices gpu"):
        plan("gpu", None, tpus=["first"])


def test_a_tpu_has_no_two_workers() -> None:
    for devices in ("auto", "tpu"):
        with pytest.raises(NoSuchDeviceError, match=r"--tpu same given twice; .*name each once"):
            plan(devices, None, tpus=["other", "same", "same"])


class TestTrouble:
    """What a launcher asks before it starts a worker."""

    def test_none(self) -> None:
        assert trouble(plan("gpu:2", None)[0]) is None
        assert trouble(plan("cpu", None)[0]) is None

    def test_a_full_gpu(self, nvml: FakeNvml) -> None:
        slot = plan("gpu:2", None)[0]
        nvml.free_mib = 300
        assert trouble(slot) == "gpu:2 is full: 300 MiB free of 80000, 1024 needed; see nvidia-smi for who uses it"

    def test_a_share_that_is_not_there(self, nvml: FakeNvml) -> None:
        shared, alone = plan("gpu:2", None, per_device=2)[0], plan("gpu:2", None)[0]
        nvml.free_mib = 35_999
        assert "35999 MiB free of 80000, 36000 needed" in str(trouble(shared))
        assert trouble(alone) is None
        nvml.free_mib = 36_000
        assert trouble(shared) is None

    def test_a_gpu_that_has_disappeared(self, nvml: FakeNvml) -> None:
        """NVML numbers the others anew: gpu:3 of the plan is its GPU 2 now, and is well."""
        slots = plan("gpu", None)
        assert nvml.names
        del nvml.names[2]
        said = "gpu:2 has disappeared: NVML finds 3 GPUs, none of them GPU-c-fake; check it with nvidia-smi"
        assert [trouble(slot) for slot in slots] == [None, None, said, None]

    def test_a_gpu_that_does_not_answer_is_its_own_trouble_alone(self, nvml: FakeNvml) -> None:
        slots = plan("gpu", None)
        nvml.lost = {"NVIDIA Test b"}
        well, lost, *others = [trouble(slot) for slot in slots]
        assert "gpu:1 has disappeared" in str(lost)
        assert "one is lost (GPU is lost)" in str(lost)
        assert [well, *others] == [None] * 3

    def test_a_driver_that_fails(self, nvml: FakeNvml) -> None:
        slot = plan("gpu:2", None)[0]
        nvml.fails = True
        assert trouble(slot) == "gpu:2: NVML cannot count the GPUs (Unknown Error); check the driver with nvidia-smi"
        nvml.names = None
        assert "gpu:2 has disappeared: NVML finds 0 GPUs" in str(trouble(slot))


class TestALostGpu:
    """One that NVML counts and cannot read."""

    @pytest.fixture(autouse=True)
    def _lost(self, nvml: FakeNvml) -> None:
        nvml.lost = {"NVIDIA Test b"}

    @pytest.mark.parametrize("devices", ["auto", "gpu"])
    def test_the_others_are_used(self, devices: str) -> None:
        said: list[str] = []
        assert [slot.label for slot in plan(devices, None, say=said.append)] == ["gpu:0", "gpu:2", "gpu:3"]
        assert said == ["gpu:1 is left out: NVML does not answer for it (GPU is lost); check it with nvidia-smi"]

    def test_it_is_no_matter_to_who_names_others(self) -> None:
        said: list[str] = []
        assert [slot.label for slot in plan("gpu:0,2", None, say=said.append)] == ["gpu:0", "gpu:2"]
        assert said == []

    def test_it_cannot_be_named(self) -> None:
        with pytest.raises(NoSuchDeviceError, match=r"gpu:0,1 given, but NVML does not answer for gpu:1 \(GPU is lost"):
            plan("gpu:0,1", None)

    @pytest.mark.parametrize("devices", ["auto", "gpu"])
    def test_none_answers(self, nvml: FakeNvml, devices: str) -> None:
        nvml.lost = set(nvml.names or ())
        with pytest.raises(NoSuchDeviceError, match=r"answers for no GPU \(gpu:0: GPU is lost, .*look at nvidia-smi"):
            plan(devices, None)


class TestVisibleDevices:
    """CUDA_VISIBLE_DEVICES as the user or SLURM has set it."""

    @pytest.mark.parametrize(
        ("value", "labels"),
        [
            ("2", ["gpu:2"]),
            ("3, 1", ["gpu:3", "gpu:1"]),
            ("GPU-c-fake", ["gpu:2"]),
            ("GPU-d,0", ["gpu:3", "gpu:0"]),
            ("1,-1,2", ["gpu:1"]),
            ("1,7,2", ["gpu:1"]),
            ("1,1,2", ["gpu:1"]),
            ("1,GPU-,2", ["gpu:1"]),  # names any of them
            ("1,c-fake,2", ["gpu:1"]),
        ],
    )
    @pytest.mark.parametrize("devices", ["auto", "gpu"])
    def test_they_alone_are_taken(
        self, value: str, labels: list[str], devices: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VISIBLE, value)
        slots = plan(devices, None)
        assert [slot.label for slot in slots] == labels
        assert [slot.uuid for slot in slots] == [f"GPU-{'abcd'[int(label[-1])]}-fake" for label in labels]

    @pytest.mark.parametrize("value", ["", "-1", "NoDevFiles", "4"])
    def test_all_are_hidden(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VISIBLE, value)
        assert [slot.label for slot in plan("auto", None)] == ["cpu"]
        with pytest.raises(NoSuchDeviceError, match=f"CUDA_VISIBLE_DEVICES is '{value}' and hides every GPU"):
            plan("gpu", None)

    def test_one_that_is_hidden_cannot_be_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VISIBLE, "2,3")
        assert [slot.label for slot in plan("gpu:3,2", None)] == ["gpu:3", "gpu:2"]
        with pytest.raises(
            NoSuchDeviceError, match="gpu:2,0 given, but CUDA_VISIBLE_DEVICES is '2,3' and hides gpu:0; unset it"
        ):
            plan("gpu:2,0", None)

    def test_a_part_that_is_not_there_shows_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VISIBLE, "MIG-7")
        assert plan("auto", None)[0].label == "cpu"


class TestPartsOfAGpu:
    """A fake card that is divided (MIG): each part is a device."""

    @pytest.fixture(autouse=True)
    def _divided(self, nvml: FakeNvml) -> None:
        nvml.parts = {"NVIDIA Test b": ["MIG-b1", "MIG-b2"]}

    def test_each_part_has_a_worker(self) -> None:
        slots = plan("gpu", None)
        assert [slot.label for slot in slots] == ["gpu:0", "gpu:1.0", "gpu:1.1", "gpu:2", "gpu:3"]
        assert [slot.environment[VISIBLE] for slot in slots[1:3]] == ["MIG-b1", "MIG-b2"]

    def test_a_card_s_number_means_all_its_parts(self) -> None:
        assert [slot.label for slot in plan("gpu:1", None)] == ["gpu:1.0", "gpu:1.1"]
        assert [slot.uuid for slot in plan("gpu:1.1,3", None)] == ["MIG-b2", "GPU-d-fake"]

    def test_what_cuda_shows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VISIBLE, "MIG-b2,0")
        assert [slot.label for slot in plan("gpu", None)] == ["gpu:1.1", "gpu:0"]
        monkeypatch.setenv(VISIBLE, "1")
        assert [slot.label for slot in plan("gpu", None)] == ["gpu:1.0"], "as CUDA, which takes the first part"

    def test_a_worker_s_share_is_of_its_part(self, monkeypatch: pytest.MonkeyPatch) -> None:
        slots = plan("gpu:1.0", None, per_device=2)
        assert {slot.memory_mib for slot in slots} == {4500}, "nine tenths of 10,000 MiB, for two"

    def test_one_that_is_gone_is_told(self, nvml: FakeNvml) -> None:
        (slot,) = plan("gpu:1.1", None)
        assert trouble(slot) is None
        nvml.parts = {"NVIDIA Test b": ["MIG-b1"]}
        assert "gpu:1.1 has disappeared" in str(trouble(slot))


class TestTpuChips:
    """Fake device files. Nothing here ran on a TPU."""

    @pytest.fixture(autouse=True)
    def _four_chips(self, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        nvml.names = None
        monkeypatch.undo()
        monkeypatch.delenv("TPU_NAME", raising=False)
        monkeypatch.setattr(kinds, "DEVICE_FILES", tmp_path)
        monkeypatch.setattr(nvidia, "gpus", list)
        for number in range(4):
            (tmp_path / f"accel{number}").touch()

    def test_each_chip_has_a_worker_of_its_own(self) -> None:
        slots = plan("auto", None)
        assert [slot.label for slot in slots] == ["tpu:0", "tpu:1", "tpu:2", "tpu:3"]
        assert {slot.device for slot in slots} == {"tpu"}
        assert [slot.environment["TPU_VISIBLE_CHIPS"] for slot in slots] == ["0", "1", "2", "3"]
        assert len({slot.environment["TPU_PROCESS_PORT"] for slot in slots}) == 4
        for slot in slots:
            told = slot.environment
            assert told["TPU_CHIPS_PER_PROCESS_BOUNDS"] == told["TPU_PROCESS_BOUNDS"] == "1,1,1"
            assert told["TPU_PROCESS_ADDRESSES"] == f"localhost:{told['TPU_PROCESS_PORT']}"

    def test_the_later_files(self, tmp_path: Path) -> None:
        for file in tmp_path.glob("accel*"):
            file.unlink()
        (tmp_path / "vfio").mkdir()
        for name in ("0", "1", "vfio"):
            (tmp_path / "vfio" / name).touch()
        assert [slot.label for slot in plan("tpu", None)] == ["tpu:0", "tpu:1"]

    def test_some_of_them(self) -> None:
        assert [slot.label for slot in plan("tpu:0,2", None)] == ["tpu:0", "tpu:2"]

    @pytest.mark.parametrize("devices", ["tpu:4", "tpu:0,0", "tpu:x", "tpu:"])
    def test_those_that_are_not_there(self, devices: str) -> None:
        if devices == "tpu:":
            assert len(plan(devices, None)) == 4
            return
        with pytest.raises(NoSuchDeviceError, match=f"{devices} given; this machine has TPU chips 0, 1, 2, 3"):
            plan(devices, None)

    def test_all_chips_for_one_worker(self) -> None:
        (slot,) = plan("tpu", None, tpu_strategy=True)
        assert (slot.label, slot.environment) == ("tpu", {"TPU_NAME": "local"})
        with pytest.raises(NoSuchDeviceError, match="--tpu-strategy given with cpu"):
            plan("cpu", None, tpu_strategy=True)
        with pytest.raises(NoSuchDeviceError, match="--tpu-strategy given with tpu:0"):
            plan("tpu:0", None, tpu_strategy=True)

    def test_jax_trains_on_one_chip(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        assert len(plan("tpu", None)) == 4
        with pytest.raises(NoSuchDeviceError, match="--tpu-strategy is TensorFlow's"):
            plan("tpu", None, tpu_strategy=True)

    def test_a_tpu_elsewhere_goes_before_the_chips(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TPU_NAME", "far")
        assert [slot.environment for slot in plan("tpu", None)] == [{}]
        monkeypatch.setenv("TPU_NAME", "local")
        assert len(plan("tpu", None)) == 4

    def test_a_lone_worker_sees_its_chip(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in plan("tpu:2", None)[0].environment:
            monkeypatch.setenv(name, "")  # what is set is taken back
        assert accelerators.own_device("tpu:2") == "tpu"
        assert os.environ["TPU_VISIBLE_CHIPS"] == "2"
        assert accelerators.own_device("tpu") == "tpu"


class TestCard:
    """The name under which all processes know a GPU."""

    def test_a_worker_of_a_launcher(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VISIBLE, plan("gpu:2", None)[0].environment[VISIBLE])
        assert card("gpu:0") == "GPU-c-fake"

    def test_a_lone_worker(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert card("gpu:2") == "GPU-c-fake"
        monkeypatch.setenv(VISIBLE, "1,2")
        assert card("gpu:1") == "GPU-c-fake"

    def test_without_an_answer_it_is_named_by_where_it_is(
        self, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nvml.fails = True
        assert card("gpu:2") == f"{socket.gethostname()} all gpu:2"
        nvml.fails, nvml.lost = False, {"NVIDIA Test c"}
        monkeypatch.setenv(VISIBLE, "2")
        assert card("gpu:0") == f"{socket.gethostname()} 2 gpu:0"

    @pytest.mark.parametrize("device", ["cpu", "tpu"])
    def test_others_have_none(self, device: str) -> None:
        assert card(device) is None


def test_chosen_gpus() -> None:
    slots = plan("gpu:0,2", None)
    assert [(slot.label, slot.environment["CUDA_VISIBLE_DEVICES"]) for slot in slots] == [
        ("gpu:0", "GPU-a-fake"),
        ("gpu:2", "GPU-c-fake"),
    ]


@pytest.mark.parametrize(
    "devices", ["gpu:4", "gpu:0,9", "gpu:-1", "gpu:one", "gpu:0,0", "gpu:0,00", "gpu:0,,1", "gpu:1.5"]
)
def test_gpus_that_are_not_there(devices: str) -> None:
    with pytest.raises(NoSuchDeviceError, match=f"{devices} given; this machine has GPUs 0, 1, 2, 3, each named once"):
        plan(devices, None)


@pytest.mark.parametrize("devices", ["cuda", "gpus", "", "CPU", "cpu:1"])
def test_unknown_words(devices: str) -> None:
    with pytest.raises(NoSuchDeviceError, match="allowed: auto, cpu, gpu, gpu:0,2"):
        plan(devices, None)


@pytest.mark.parametrize("cards", [None, []])
def test_no_gpu(nvml: FakeNvml, cards: list[str] | None) -> None:
    nvml.names = cards
    assert nvidia.gpus() == []
    with pytest.raises(NoSuchDeviceError, match="no GPU found: NVML finds no NVIDIA GPU"):
        plan("gpu", None)
    assert [slot.label for slot in plan("auto", None)] == ["cpu"]


def test_auto_takes_gpus_then_a_tpu_then_the_cpu(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(plan("auto", None)) == 4
    nvml.names = None
    monkeypatch.setattr(kinds, "has_tpu", lambda: True)
    assert [(slot.label, slot.device) for slot in plan("auto", None)] == [("tpu", "tpu")]
    monkeypatch.setattr(kinds, "has_tpu", lambda: False)
    with pytest.raises(NoSuchDeviceError, match="no TPU found"):
        plan("tpu", None)


def test_a_new_kind_is_one_declaration(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [True]
    new = Kind("xpu", "XPU", lambda: there[0], "look for it", "xpu", frozenset())
    for name in ("ACCELERATORS", "KINDS"):
        for module in (kinds, accelerators):
            monkeypatch.setattr(module, name, (*getattr(kinds, name)[-3:], new))
    assert [(slot.label, slot.device) for slot in plan("xpu", None)] == [("xpu", "xpu")]
    assert kinds.device_of("xpu") == (new, 0)
    monkeypatch.setattr(nvidia, "gpus", list)
    assert [slot.device for slot in plan("auto", None)] == ["xpu"]
    there[0] = False
    with pytest.raises(NoSuchDeviceError, match="no XPU found: look for it"):
        plan("xpu", None)


def test_the_words_for_devices_come_from_the_kinds() -> None:
    assert kinds.ONE_DEVICE == "auto, cpu, gpu:0, tpu or tpu:0"
    assert kinds.SOME_DEVICES == "auto, cpu, gpu, gpu:0,2, tpu or tpu:0,2"
    assert kinds.ANY_KIND == "auto, cpu, gpu or tpu"


@pytest.mark.parametrize(("workers", "threads"), [(None, 10), (1, 10), (3, 3), (4, 2), (10, 1), (25, 1)])
def test_cpu_workers_share_the_cores(workers: int | None, threads: int) -> None:
    slots = plan("cpu", workers)
    assert len(slots) == (workers or 1)
    assert {slot.threads for slot in slots} == {threads}
    assert {slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots} == {"-1"}, "no card is touched"


def test_numbers_of_workers_that_make_no_sense() -> None:
    with pytest.raises(NoSuchDeviceError, match="--workers 3 given for gpu:0,2, but 2 run"):
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
        assert not kinds.has_tpu()
        monkeypatch.setenv("TPU_NAME", "a-tpu")
        assert kinds.has_tpu()
