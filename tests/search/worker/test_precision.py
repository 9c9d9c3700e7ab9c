"""A study's precision is decided by its file, else by the launcher's devices, else by its first worker."""

import pytest
from fake_nvml import FakeNvml
from making import TINY, open_study

from affinity_search.search.devices.slots import plan
from affinity_search.search.worker.precision import settle_for
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.study import history


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml(["NVIDIA Test a", "NVIDIA Test b"])
    monkeypatch.setitem(__import__("sys").modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


@pytest.mark.parametrize(
    ("capabilities", "settled"),
    [({}, "mixed_bfloat16"), ({"NVIDIA Test b": 7}, "mixed_float16"), ({"NVIDIA Test a": 6}, "float32")],
)
def test_the_launcher_s_gpus_decide(
    sqlite: Backend, nvml: FakeNvml, capabilities: dict[str, int], settled: str
) -> None:
    nvml.capabilities = capabilities
    study, _ = open_study(sqlite, TINY)
    said: list[str] = []
    study = settle_for(study, plan("gpu", None), said.append)
    assert (study.precision, said) == (settled, [])
    assert history(study)[-1]["text"] == f"settled as {settled}"


def test_a_gpu_that_does_not_tell_leaves_it_to_the_first_worker(sqlite: Backend, nvml: FakeNvml) -> None:
    nvml.capabilities = {"NVIDIA Test a": 0}
    study, _ = open_study(sqlite, TINY)
    assert settle_for(study, plan("gpu", None), print).precision is None


def test_a_cpu_s_choice_is_told_with_how_to_make_another(sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("affinity_search.search.devices.tensorflow.device.cpu_multiplies_bfloat16", lambda: False)
    study, _ = open_study(sqlite, TINY)
    said: list[str] = []
    study = settle_for(study, plan("cpu", 1), said.append)
    assert study.precision == "float32"
    (line,) = said
    assert line.startswith("precision float32, chosen for this CPU, now holds for every worker of the study; ")
    assert "--set training.precision=mixed_bfloat16" in line
    settle_for(study, plan("cpu", 1), said.append)
    assert len(said) == 1, "once"


def test_what_the_file_names_holds_everywhere(sqlite: Backend) -> None:
    study, _ = open_study(sqlite, TINY, overrides=["training.precision=mixed_bfloat16"])
    said: list[str] = []
    assert settle_for(study, plan("cpu", 1), said.append).precision == "mixed_bfloat16"
    assert said == []
