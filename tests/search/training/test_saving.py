"""A trained network as a file: it predicts what its trainer does, in any process and on any backend, and says what
it is.
"""

import json
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affinity_search.search import devices

DEVICE = devices.configure("cpu", 2)

import keras  # the device comes first

from affinity_search.search.training.data.splits import Split
from affinity_search.search.training.errors import ModelFileError
from affinity_search.search.training.fit import Trainer, TrainingConfig
from affinity_search.search.training.heads.class_sizes import log_shares
from affinity_search.search.training.metrics import softmax
from affinity_search.search.training.networks.building import NetworkConfig
from affinity_search.search.training.networks.model_file import about_in
from affinity_search.search.training.networks.saving import KERAS_OWN, load_model
from affinity_search.studies.data import SourceDefinition
from affinity_search.studies.heads import HEADS

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 8, 8, 1), np.uint8)
VECTORS = RNG.normal(3, 100, (60, 5)).astype("float32")
LABELS = np.array([0] * 36 + [1] * 18 + [2] * 6, np.int32)  # the classes are not alike: adjustment has an effect
VALUES = {
    "lambda": 0.4,
    "sigma": 20.0,
    "n_centers": 2,
    "softmax_share": 0.5,
    "class_weight_power": 0.5,
    "one_minus_beta": 0.01,
    "gamma": 1.5,
    "tau": 1.0,
    "max_margin": 0.3,
    "scale": 10.0,
}
FACTS = SourceDefinition("digits", shape=(8, 8, 1), classes=("a", "b", "c"), train=(36, 18, 6), shift_px=1)
ABOUT = {"format": 1, "classes": ["a", "b", "c"], "note": "é, {}"}


def trained(head: str, kind: str = "plain", inputs: Any = IMAGES, precision: Any = "float32") -> Trainer:
    """One with more room for centres than the trial uses."""
    order = RNG.permutation(60)
    split = Split(inputs[order], LABELS[order], (False, False, True))
    network = NetworkConfig((4, 6), 1, 0.5, head, kind=kind)
    training = TrainingConfig(2, 16, 5e-3, augment=inputs.ndim == 4, precision=precision)
    trainer = Trainer(DEVICE, split, split, FACTS, network, training, max_centers=3)
    trainer.run({parameter.key: VALUES[parameter.key] for parameter in HEADS[head].required}, seed=1)
    return trainer


def expected(trainer: Trainer, head: str, tau: float | None) -> Any:
    outputs = trainer._outputs_for(trainer._evaluation[0])
    if not HEADS[head].logits:
        return outputs
    return softmax(outputs if tau is None else outputs - tau * log_shares((36, 18, 6)))


def images_of(trainer: Trainer) -> Any:
    return keras.ops.convert_to_numpy(trainer._model.get_layer("images").table)[:60]


CASES = [(head, "plain", IMAGES) for head in HEADS]
CASES += [("affinity", "resnet32", IMAGES), ("softmax", "mlp", IMAGES), ("joint", "mlp", VECTORS)]


@pytest.mark.parametrize(("head", "kind", "inputs"), CASES, ids=[f"{h}-{k}-{i.ndim}d" for h, k, i in CASES])
def test_the_file_predicts_what_the_trainer_does(head: str, kind: str, inputs: Any, tmp_path: Path) -> None:
    trainer = trained(head, kind, inputs)
    tau = 1.3 if HEADS[head].logits else None
    trainer.inference_model(ABOUT, tau).save(tmp_path / "model.keras")
    model = load_model(tmp_path / "model.keras")
    given, wanted = images_of(trainer), expected(trainer, head, tau)
    assert np.ptp(wanted, axis=0).max() > 1e-3, "the images differ in what is predicted"
    np.testing.assert_allclose(model.predict(given, verbose=0), wanted, atol=1e-5)
    assert model.input.dtype == inputs.dtype.name
    assert model.get_layer("about").about == about_in(tmp_path / "model.keras") == ABOUT
    if HEADS[head].logits:
        np.testing.assert_allclose(wanted.sum(axis=1), 1, atol=1e-5)
        untouched = trainer.inference_model(ABOUT)
        assert np.abs(untouched.predict(given, verbose=0) - wanted).max() > 1e-3, "the adjustment has an effect"


def test_a_network_of_mixed_precision_is_saved_as_float32(tmp_path: Path) -> None:
    trainer = trained("softmax", precision="mixed_bfloat16")
    model = trainer.inference_model(ABOUT)
    assert {layer.compute_dtype for layer in model.layers if layer.name != "images"} == {"float32"}
    wanted = expected(trainer, "softmax", None)
    assert np.abs(model.predict(images_of(trainer), verbose=0) - wanted).max() < 0.02, "bfloat16 has three digits"


def test_no_layer_of_the_file_asks_for_a_device() -> None:
    kinds = {type(layer) for layer in trained("affinity").inference_model(ABOUT).layers}
    assert {keras.layers.AveragePooling2D, keras.layers.BatchNormalization} <= kinds
    assert kinds.isdisjoint(KERAS_OWN)


def test_a_head_without_logits_takes_no_adjustment() -> None:
    with pytest.raises(ValueError, match="no logits"):
        trained("affinity").inference_model(ABOUT, 1.0)


def predicted_elsewhere(backend: str, model: Path, images: Path, folder: Path) -> Any:
    """By a process that knows Keras and the package alone, as people open the file."""
    code = (
        "import sys, numpy as np, keras\nfrom affinity_search import load_model\n"
        "assert keras.backend.backend() == sys.argv[4]\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))"
    )
    arguments = [str(model), str(images), str(folder / "scores.npy"), backend]
    environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"}
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=environment, cwd=folder)
    return np.load(folder / "scores.npy")


@pytest.mark.long
@pytest.mark.parametrize(("backend", "kind"), [("tensorflow", "plain"), ("jax", "resnet32")])
def test_a_fresh_process_of_either_backend_opens_it(backend: str, kind: str, tmp_path: Path) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    trainer = trained("affinity", kind)
    trainer.inference_model(ABOUT).save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images_of(trainer))
    found = predicted_elsewhere(backend, tmp_path / "model.keras", tmp_path / "images.npy", tmp_path)
    np.testing.assert_allclose(found, expected(trainer, "affinity", None), atol=1e-5)


class TestOtherFiles:
    def test_there_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError, match="there is no file"):
            load_model(tmp_path / "none.keras")

    def test_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "text.keras").write_text("text")
        with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
            archive.writestr("config.json", "[]")
        with pytest.raises(ModelFileError, match="no Keras model"):
            load_model(tmp_path / "text.keras")
        with pytest.raises(ModelFileError, match="did not write"):
            load_model(tmp_path / "other.keras")

    def test_somebody_else_s_model(self, tmp_path: Path) -> None:
        inputs = keras.Input((2,))
        keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "theirs.keras")
        with pytest.raises(ModelFileError, match="did not write"):
            load_model(tmp_path / "theirs.keras")

    def test_cut_or_of_a_later_version(self, tmp_path: Path) -> None:
        path = tmp_path / "model.keras"
        trained("softmax", "mlp", VECTORS).inference_model(ABOUT | {"format": 2}).save(path)
        with pytest.raises(ModelFileError, match="another version"):
            about_in(path)
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json").replace(b'"format": 2', b'"format": 1'))
        with zipfile.ZipFile(path, "w") as archive:  # its weights are lost
            archive.writestr("config.json", json.dumps(config))
        assert about_in(path)["classes"] == ["a", "b", "c"]
        with pytest.raises(ModelFileError, match="cannot be opened"):
            load_model(path)
