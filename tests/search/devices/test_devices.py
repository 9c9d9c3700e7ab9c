import contextlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import types

import pytest
from making import TINY

from affinity_search.search import devices
from affinity_search.search.devices import kinds
from affinity_search.search.devices.device import Wanted
from affinity_search.search.devices.errors import TrainingError, UnfitMachineError
from affinity_search.search.devices.jax import device as on_jax
from affinity_search.search.devices.jax.device import JaxDevice
from affinity_search.search.devices.kinds import CPU, GPU, TPU, Kind
from affinity_search.search.devices.precision import cpu_multiplies_bfloat16
from affinity_search.search.devices.tensorflow import device as on_tensorflow
from affinity_search.search.devices.tensorflow.device import TensorFlowDevice

DEVICE = devices.configure("cpu", 2)


def in_new_process(code, **environment):
    """A device is settled once per process, so other choices need their own."""
    ours = ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**kept, **environment}, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


def unclaimed(kind, backend=TensorFlowDevice, **details):
    """A device that no backend knows of; a GPU with these details."""
    device = backend(Wanted(kind))
    device.gpu_details = lambda: details
    return device


tensorflow_only = pytest.mark.skipif(devices.backend() != "tensorflow", reason="the backend is not TensorFlow")


@tensorflow_only
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="TensorFlow's oneDNN is for x86")
@pytest.mark.parametrize(("chosen", "used"), [({}, True), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, False)])
def test_convolutions_on_a_cpu_are_onednns_unless_somebody_says_no(chosen, used):
    code = """
from affinity_search.search import devices
devices.configure("cpu", 1)
import tensorflow as tf
tf.nn.conv2d(tf.ones((8, 16, 16, 16)), tf.ones((3, 3, 16, 16)), 1, "SAME")
"""
    told = in_new_process(code, ONEDNN_VERBOSE="1", **chosen).stdout
    assert ("exec,cpu,convolution" in told) == used


@pytest.mark.long
@tensorflow_only
def test_cpu_settings_reach_tensorflow_quietly():
    code = """
from affinity_search.search import devices
device = devices.configure("cpu", 1)
import tensorflow as tf
print(tf.config.threading.get_intra_op_parallelism_threads(), tf.config.threading.get_inter_op_parallelism_threads())
print(tf.config.get_visible_devices("GPU"), device.describe(), device.replicas())
tf.constant(1.0) + 1
"""
    done = in_new_process(code)
    assert done.stdout == "1 1\n[] cpu, 1 thread 1\n"
    assert done.stderr == ""


@tensorflow_only
def test_a_late_change_of_threads_is_an_error_and_the_same_again_is_not():
    import tensorflow as tf

    float(tf.constant(1.0) + 1)
    mine = devices.configure("cpu", 2)  # an earlier test of this process may have asked for no number of threads
    assert devices.configure("cpu", 2) is mine
    with pytest.raises(devices.DeviceError, match="start a new process"):
        devices.configure("cpu", 1)
    assert devices.current() is mine, "a refused change changes nothing"


@tensorflow_only
def test_an_absent_gpu_is_named():
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(devices.DeviceError, match=r"gpu:0 was asked for.* 0 GPUs"):
        devices.configure("gpu:0")


@tensorflow_only
def test_an_absent_tpu_is_one_sentence():
    code = """
from affinity_search.search import devices
try:
    devices.configure("tpu")
except devices.DeviceError as error:
    print(error)
"""
    lines = in_new_process(code).stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("No TPU answers")


@pytest.mark.parametrize("device", ["", "gpu", "gpu:", "gpu:-1", "gpu:x", "cuda:0", "CPU"])
def test_unknown_devices_are_refused(device):
    with pytest.raises(devices.DeviceError, match="gpu:0"):
        devices.configure(device)


def test_threads_must_be_positive():
    with pytest.raises(devices.DeviceError, match="threads is 0"):
        devices.configure("cpu", 0)
    assert issubclass(devices.DeviceError, TrainingError)


@pytest.mark.parametrize(
    ("kind", "capability", "expected"),
    [
        (GPU, None, "float32"),
        (GPU, (6, 1), "float32"),
        (GPU, (7, 5), "mixed_float16"),
        (GPU, (8, 0), "mixed_bfloat16"),
        (GPU, (9, 0), "mixed_bfloat16"),
        (TPU, None, "mixed_bfloat16"),
    ],
)
@pytest.mark.parametrize("backend", [TensorFlowDevice, JaxDevice])
def test_auto_precision_follows_the_hardware(backend, kind, capability, expected):
    device = unclaimed(kind, backend, **({"compute_capability": capability} if capability else {}))
    assert device.settle_precision("auto", (8, 24)) == expected, "the filters matter on a CPU alone"
    assert device.settle_precision("float32") == "float32"
    assert device.settle_precision("mixed_bfloat16") == "mixed_bfloat16"


@pytest.mark.parametrize(
    ("flags", "fast"),
    [("fpu avx512f avx512_bf16", True), ("fpu amx_bf16", True), ("fpu avx2 avx512f", False), ("", False)],
)
def test_a_processor_s_bfloat16_is_read_from_its_flags(tmp_path, flags, fast):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: amx_bf16\n")
    assert cpu_multiplies_bfloat16(tmp_path / "cpuinfo") == fast
    assert not cpu_multiplies_bfloat16(tmp_path / "absent")


@pytest.mark.parametrize(
    ("backend", "fast", "widths", "expected"),
    [
        ("tensorflow", True, (16, 64, 256), "mixed_bfloat16"),
        ("tensorflow", True, (8, 16), "float32"),
        ("tensorflow", True, (16, 24), "float32"),
        ("tensorflow", False, (16, 64), "float32"),
        ("jax", True, (16, 64), "float32"),
    ],
)
def test_auto_precision_on_a_cpu(monkeypatch, backend, fast, widths, expected):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    monkeypatch.setattr(on_tensorflow, "cpu_multiplies_bfloat16", lambda: fast)
    device = unclaimed(CPU, {"tensorflow": TensorFlowDevice, "jax": JaxDevice}[backend])
    assert device.settle_precision("auto", widths) == expected
    assert device.settle_precision("mixed_bfloat16", widths) == "mixed_bfloat16"
    assert devices.precision_on(CPU, 0, widths) == expected, "a launcher says the same"


def test_unknown_precision_is_refused():
    with pytest.raises(devices.DeviceError, match="no precision 'float16'"):
        DEVICE.settle_precision("float16")


@pytest.mark.parametrize(("kind", "expected"), [(CPU, False), (TPU, False), (GPU, True)])
def test_xla_only_where_it_helps(kind, expected):
    """That the functions then are compiled stands in test_tpu_readiness."""
    assert unclaimed(kind).compiles_with_xla() == expected


def test_models_are_built_in_the_strategys_scope():
    entered = []

    class Strategy:
        num_replicas_in_sync = 8

        def scope(self):
            entered.append("scope")
            return contextlib.nullcontext()

    device = unclaimed(TPU)
    assert device.describe() == "tpu"
    device.strategy = Strategy()
    with device.scope():
        assert entered == ["scope"]
    assert device.describe() == "tpu, 8 cores"
    assert device.replicas() == 8


def test_a_gpu_is_described_by_its_name():
    assert unclaimed(GPU, device_name="NVIDIA H200").describe() == "NVIDIA H200"
    assert unclaimed(GPU).describe() == "gpu:0", "where the backend does not tell"


def test_without_a_device_a_layer_says_what_to_call(monkeypatch):
    monkeypatch.setattr(devices, "_current", None)
    with pytest.raises(RuntimeError, match=r"call devices\.configure first"):
        devices.current()


def test_a_kind_that_the_backend_does_not_know_is_no_silent_cpu(monkeypatch):
    new = Kind("xpu", "XPU", lambda: True, "", "xpu", frozenset())
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, new))
    with pytest.raises(devices.DeviceError, match="computes on no XPU; choose another device"):
        devices.configure("xpu")


def test_a_gpu_is_claimed_with_memory_growth():
    calls = []
    gpus = ["first", "second"]
    config = types.SimpleNamespace(
        list_physical_devices=lambda kind: gpus,
        set_visible_devices=lambda chosen, kind: calls.append((chosen, kind)),
        experimental=types.SimpleNamespace(set_memory_growth=lambda gpu, on: calls.append((gpu, on))),
    )
    on_tensorflow.claim_gpu(types.SimpleNamespace(config=config), 1, None)
    assert calls == [(["second"], "GPU"), ("second", True)]


def test_a_worker_of_several_gets_its_share_of_the_gpu():
    calls = []
    config = types.SimpleNamespace(
        list_physical_devices=lambda kind: ["first"],
        set_visible_devices=lambda chosen, kind: None,
        LogicalDeviceConfiguration=lambda memory_limit: memory_limit,
        set_logical_device_configuration=lambda gpu, limits: calls.append((gpu, limits)),
    )
    on_tensorflow.claim_gpu(types.SimpleNamespace(config=config), 0, 42_000)
    assert calls == [("first", [42_000])], "and no growth, which TensorFlow refuses beside a limit"


def test_jax_is_set_by_the_environment_without_tensorflow():
    code = """
import os, sys
from affinity_search.search import devices
devices.configure("cpu", 1)
print(os.environ["JAX_PLATFORMS"], os.environ["XLA_FLAGS"], "tensorflow" in sys.modules, devices.backend())
"""
    done = in_new_process(code, KERAS_BACKEND="jax", XLA_FLAGS="--one")
    assert done.stdout == "cpu --one --xla_cpu_multi_thread_eigen=false False jax\n"


@pytest.mark.parametrize(
    ("visible", "device", "expected"),
    [(None, "gpu:1", "1"), ("0,1", "gpu:1", "1"), ("3, GPU-5a", "gpu:1", "GPU-5a"), ("2", "gpu:0", "2")],
)
def test_jax_takes_the_gpu_of_that_number_among_the_visible_ones(monkeypatch, visible, device, expected):
    """Only that JAX finds it is left out."""
    monkeypatch.setattr(on_jax, "_require", lambda kind: None)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for name in ("JAX_PLATFORMS", "XLA_FLAGS", "XLA_PYTHON_CLIENT_PREALLOCATE"):
        monkeypatch.setenv(name, "")  # restored afterwards
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(devices, "_current", None)
    for _ in range(2):
        devices.configure(device)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
        assert os.environ["JAX_PLATFORMS"] == "cuda"


@pytest.mark.parametrize(
    ("device", "settings", "said"),
    [
        ("gpu:0", {}, "JAX finds no GPU ("),
        ("gpu:2", {"CUDA_VISIBLE_DEVICES": "0,1"}, "CUDA_VISIBLE_DEVICES is '0,1', which leaves 2 GPUs"),
        ("tpu", {}, "JAX finds no TPU ("),
        ("tpu", {"TPU_NAME": "far"}, "TPU_NAME is far, but JAX runs on the TPU of its own machine alone"),
    ],
)
def test_a_device_that_jax_does_not_find_is_one_sentence(device, settings, said):
    import jax

    if any(one.platform != "cpu" for one in jax.devices()):
        pytest.skip("this machine has a device for JAX")
    code = """
import sys
from affinity_search.search import devices
try:
    devices.configure(sys.argv[1])
except devices.DeviceError as error:
    print(error)
"""
    lines = in_new_process(
        code.replace("sys.argv[1]", repr(device)), KERAS_BACKEND="jax", **settings
    ).stdout.splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_versions_come_without_imports():
    code = "import sys; from affinity_search.search import devices\n"
    code += "print(sorted(devices.versions())); print('keras' in sys.modules)"
    done = in_new_process(code)
    names = ["affinity-search", "backend", "backend_version", "keras", "numpy", "optuna", "python", "scikit-learn"]
    assert done.stdout == f"{names}\nFalse\n"
    assert devices.versions()["numpy"] == importlib.metadata.version("numpy")


def test_the_backend_is_chosen_by_the_environment_alone(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    assert devices.backend() == "tensorflow"
    monkeypatch.setenv("KERAS_BACKEND", "")
    assert devices.backend() == "tensorflow"
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert devices.backend() == "torch"


TRAIN = """
from pathlib import Path
from affinity_search.search import devices
device = devices.configure("cpu", 1)
from affinity_search.search.worker.study_trainer import StudyTrainer
from affinity_search.studies.files import load
spec = load({study!r}, ["training.epochs=1"])
(score,) = StudyTrainer(device, spec, "float32", None).epochs({{"lambda": 0.5, "sigma": 10.0, "n_centers": 2}}, 0)
print(repr(score.loss), score.scores.macro_f1)
"""


@pytest.mark.long
def test_a_keras_json_changes_no_score(tmp_path):
    code = TRAIN.format(study=TINY)
    theirs = {"backend": "torch", "floatx": "float16", "epsilon": 0.25, "image_data_format": "channels_first"}
    for folder, settings in (("plain", {}), ("theirs", theirs)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "keras.json").write_text(json.dumps(settings))
    plain, changed = (in_new_process(code, KERAS_HOME=str(tmp_path / folder)) for folder in ("plain", "theirs"))
    assert plain.stdout.strip()
    assert changed.stdout == plain.stdout


def test_a_keras_json_that_keras_refuses_is_named(tmp_path):
    (tmp_path / "keras.json").write_text('{"floatx": "float8"}')
    code = "from affinity_search.search import devices\n"
    code += "try: devices.import_keras()\nexcept Exception as e: print(type(e).__name__, e)"
    said = in_new_process(code, KERAS_HOME=str(tmp_path)).stdout
    assert said.startswith(f"UnfitMachineError Keras does not accept {tmp_path / 'keras.json'} (Invalid `floatx`")
    assert said.endswith("correct or remove that file\n")


@pytest.mark.parametrize(
    ("chosen", "installed", "remedy"),
    [
        ("tensorflow", ["jax"], "pip install 'affinity-search[cpu]' (or [gpu], [tpu]), or set KERAS_BACKEND=jax"),
        ("jax", [], "pip install 'affinity-search[jax]'"),
        ("torch", ["tensorflow", "torch"], "training runs on tensorflow and jax; set KERAS_BACKEND=tensorflow"),
    ],
)
def test_a_backend_that_is_not_here_is_named_with_what_to_do(monkeypatch, chosen, installed, remedy):
    monkeypatch.setenv("KERAS_BACKEND", chosen)
    monkeypatch.setattr("affinity_search.search.devices.find_spec", lambda name: name in installed or None)
    with pytest.raises(UnfitMachineError, match=f"^Keras' backend is {chosen}, .*{re.escape(remedy)}"):
        devices.configure("cpu")
