"""A trained network as a model of its own: images or vectors in, class scores out, in one file that Keras opens.

uint8 images (N, H, W, channels) → pixels / 255      (of vectors: float32 (N, D) → each column standardised)
  → the network → pooling → batch norm, if the head wants one → head
  → probabilities: softmax(z − τ log π), for heads with logits z → about, which changes nothing and says what this is

All of it is float32, whatever precision it was trained in. Batch norms and average pooling are Keras' own, so the file
needs no device.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
from keras import ops

from affinity_search.search.training.errors import ModelFileError
from affinity_search.search.training.heads import HEADS, head_class
from affinity_search.search.training.networks import resnet  # noqa: F401 - registers its layer for `load_model`
from affinity_search.search.training.networks.building import NetworkConfig, before_head
from affinity_search.search.training.networks.model_file import ABOUT, about_in
from affinity_search.search.training.networks.normalization import BatchNorm
from affinity_search.search.training.networks.plain import HalvingPool

Tensor = Any

for _head in HEADS:
    head_class(_head)  # registers it


@keras.saving.register_keras_serializable(package="affinity_search")
class About(keras.layers.Layer):  # type: ignore[misc]
    """Passes class scores on; `about` says of the model what a file must tell: plain values, ready for JSON."""

    def __init__(self, about: Mapping[str, Any], **options: Any) -> None:
        """`about` is kept as it is."""
        super().__init__(**options)
        self.about = dict(about)

    def get_config(self) -> dict[str, Any]:
        """For Keras, which makes the layer anew from it."""
        return {**super().get_config(), "about": self.about}

    def call(self, scores: Tensor) -> Tensor:
        """(N, C) in and out."""
        return scores


@keras.saving.register_keras_serializable(package="affinity_search")
class Probabilities(keras.layers.Layer):  # type: ignore[misc]
    """Logits z (N, C) to probabilities softmax(z − shift). With shift = τ log π: Menon et al. 2021, eq. (9)."""

    def __init__(self, shift: Iterable[float] | None = None, **options: Any) -> None:
        """`shift` (C,); None is none."""
        super().__init__(**options)
        self.shift = None if shift is None else [float(each) for each in shift]

    def get_config(self) -> dict[str, Any]:
        """For Keras, which makes the layer anew from it."""
        return {**super().get_config(), "shift": self.shift}

    def call(self, logits: Tensor) -> Tensor:
        """(N, C) in and out."""
        shifted = logits if self.shift is None else logits - ops.convert_to_tensor(self.shift, "float32")
        return ops.softmax(shifted, axis=-1)


def inference_model(
    trained: Any, config: NetworkConfig, about: Mapping[str, Any], shift: Iterable[float] | None = None
) -> Any:
    """A Keras model with the weights of `trained`, which `build_network` built from the same `config`.

    It takes images or vectors (N, …) and gives class scores (N, C): probabilities for a head with logits, else what the
    head gives. Raises ValueError for a `shift` (C,) of a head without logits.
    """
    rows, known = trained.get_layer("images").table, trained.get_layer("head")
    if shift is not None and not known.logits:
        raise ValueError(f"the {config.head} head gives no logits that could be adjusted")
    head: Any = head_class(config.head).make(known.class_sizes, getattr(known, "max_centers", 1))
    inputs = keras.Input(rows.shape[1:], dtype=rows.dtype, name="images" if len(rows.shape) == 4 else "vectors")
    scores = head(before_head(inputs, config, head))
    if known.logits:
        scores = Probabilities(shift, dtype="float32", name="probabilities")(scores)
    model = keras.Model(inputs, About(about, dtype="float32", name=ABOUT)(scores))
    model = keras.models.clone_model(model, clone_function=_as_keras_own)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(trained.get_layer(layer.name).get_weights())
    return model


# These two ask for the process's device; a model file is for any.
KERAS_OWN = {BatchNorm: keras.layers.BatchNormalization, HalvingPool: keras.layers.AveragePooling2D}


def _as_keras_own(layer: Any) -> Any:
    kind = KERAS_OWN.get(type(layer), type(layer))
    return kind.from_config(layer.get_config())


def load_model(path: str | Path) -> Any:
    """The Keras model of a file that `affinity-search train` wrote; `model.get_layer("about").about` says what it is.

    Importing this function makes its layers known to Keras, so that `keras.saving.load_model` opens the file too.
    Raises ModelFileError if the file is not there or not such a model.
    """
    about_in(Path(path))
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # a file that was cut or changed raises nearly anything
        said = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ModelFileError(f"{path} cannot be opened ({said[0][:200]}); train the model again") from error
