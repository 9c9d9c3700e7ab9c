"""The benchmark for GPUs, as far as a machine without one can tell: it must work the first time that it meets one."""

import subprocess
import sys

import pytest
from making import ROOT

from affinity_search.search import devices
from affinity_search.search.devices import nvidia
from affinity_search.search.devices.kinds import device_of
from affinity_search.search.devices.nvidia import VISIBLE, Gpu
from affinity_search.search.devices.slots import plan
from benchmarks import gpu

pytestmark = pytest.mark.long

ARTICLE = [64, 128, 256]


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    cards = [Gpu(index, f"GPU-{index}", "a card", 80_000, 79_000) for index in range(2)]
    monkeypatch.setattr(nvidia, "gpus", lambda: cards)


@pytest.mark.parametrize("word", gpu.MATRIX)
def test_a_process_can_be_told_its_device_words(word: str) -> None:
    device_of(word)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_launcher_puts_all_workers_on_one_gpu(workers: int) -> None:
    assert gpu.placed("gpu:0", workers) == ["--devices", "gpu:0", "--workers-per-device", str(workers)]
    slots = plan("gpu:0", None, per_device=workers)
    assert [slot.uuid for slot in slots] == ["GPU-0"] * workers


def test_on_a_cpu_it_counts_workers() -> None:
    assert gpu.placed("cpu", 2) == ["--devices", "cpu", "--workers", "2"]


@pytest.mark.parametrize("backend", devices.TRAINING_BACKENDS)
def test_the_rate_of_matrix_products(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setenv("KERAS_BACKEND", backend)
    rate, name = gpu.matrix_rate("cpu", 32)
    assert 0 < rate < 1_000
    assert name.startswith("cpu, ")


def test_without_a_gpu_it_ends_with_one_line() -> None:
    if nvidia.gpus():
        pytest.skip("this machine has a GPU")
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert done.stderr.startswith("error: no GPU found: NVML finds no NVIDIA GPU")


def test_a_gpu_that_the_backend_does_not_see_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML finds one, but its libraries are not installed."""
    monkeypatch.delenv(VISIBLE, raising=False)
    if nvidia.gpus():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(nvidia, "gpus", lambda: [Gpu(0, "GPU-0", "a card", 80_000, 79_000)])
    with pytest.raises(SystemExit, match=r"^error: gpu:0 was asked for.* 0 GPUs[^\n]*$"):
        gpu.matrix_rate("gpu:0", 32)


def test_what_a_trial_of_the_article_costs() -> None:
    """By hand, pixels × width × the inputs of a block's three convolutions: 3 + 2·64, 64 + 2·128, 128 + 2·256."""
    image = gpu.flop_an_image(ARTICLE, 3)
    assert image == 3 * 18 * (1024 * 64 * 131 + 256 * 128 * 320 + 64 * 256 * 640)
    assert image == pytest.approx(1.6e9, rel=0.01)
    assert image * gpu.TRAINING_IMAGES * 100 == pytest.approx(4.8e15, rel=0.01)


def test_a_worker_s_first_trial_does_not_count_whichever_number_it_has() -> None:
    assert gpu.compiled([("a", 9.0), ("a", 1.0), ("b", 8.0), ("a", 2.0), ("b", 3.0)]) == [1.0, 2.0, 3.0]
    assert gpu.compiled([("a", 9.0)]) == [9.0], "better than nothing"
