"""A study's network from index to class scores: what all kinds have around them, and how a trial begins anew.

index → image table → augmentation → pixels / 255      (of vectors: index → table → each column standardised)
  → the network of that kind
  → global average pooling of feature maps → batch norm, if the head wants one → head
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from affinity_search.search.devices.precision import Precision
from affinity_search.search.training.heads import head_class
from affinity_search.search.training.heads.base import Head, Params, redraw
from affinity_search.search.training.networks import FIRST, NETWORKS, network_of
from affinity_search.search.training.networks.layers import Augmentation, Rows, Scale, Table
from affinity_search.search.training.networks.normalization import BatchNorm

MOST_CLASSES = 256


@dataclass(frozen=True)
class NetworkConfig:
    """The architecture; `head` and `kind` are the names of one of the heads and of the networks.

    `batch_norm_momentum`: Keras' default 0.99 keeps evaluation meaningless for the first several hundred steps, as
    moving variances start at 1 while real ones are about 0.01; 0.9 makes early scores fit for a pruner.
    """

    widths: tuple[int, ...]
    depth: int
    batch_norm_momentum: float
    head: str
    embedding: int | None = None  # width h of a Dense layer before the last batch norm, as for the article's pictures
    kind: str = FIRST

    def __post_init__(self) -> None:
        empty = not self.widths and not network_of(self.kind).bare
        if empty or min((*self.widths, self.depth)) < 1 or not 0 <= self.batch_norm_momentum < 1:
            raise ValueError(f"widths and depth must be positive and batch_norm_momentum in [0, 1): {self}")
        head_class(self.head)


def build_network(
    config: NetworkConfig,
    images: Rows,
    class_sizes: Sequence[int],
    max_centers: int = 1,
    augmentation: tuple[int, bool] | None = None,
    precision: Precision = "float32",
    labels: NDArray[np.int32] | None = None,
) -> Any:
    """A Keras model from int32 indices (N,) into `images` to class scores (N, C).

    `images` are uint8 (T, H, W, channels), or vectors: float32 (T, D), whose columns may have any scale.
    `class_sizes` are the training images of each class, `augmentation` is (shift in pixels, flip). The layer "head" is
    the head, "features" gives what it is trained on before the last batch norm. Features and the head are float32 in
    any precision. With `labels` (T,) a head can count what its diagnostics tell.
    Raises ValueError if the images are too small to be halved between all widths, for vectors that the network does not
    take or that are to be augmented, for other arrays, or for more than 256 classes.
    """
    if len(class_sizes) > MOST_CLASSES:
        raise ValueError(f"{len(class_sizes)} classes; labels are kept in a byte, which holds {MOST_CLASSES}")
    _require_fit(config, images, augmentation)
    indices = keras.Input(shape=(), dtype="int32", name="index")
    head: Any = head_class(config.head).make(class_sizes, max_centers)
    x = before_head(Table(images, name="images")(indices), config, head, augmentation, precision)
    known: tuple[Any, ...] = ()
    if labels is not None and head.takes_labels:
        known = (Table(labels.astype("uint8"), name="labels")(indices),)
    return keras.Model(indices, head(x, *known))


def before_head(
    x: Any,
    config: NetworkConfig,
    head: Head,
    augmentation: tuple[int, bool] | None = None,
    precision: Precision = "float32",
) -> Any:
    """From images (N, H, W, channels) of bytes, or vectors (N, D), to the features (N, h) that enter the head."""
    x = _scaled(x, config, augmentation, precision)
    x = network_of(config.kind).build(x, config, precision)
    pooled = "features" if config.embedding is None else "pooled"
    pooling = keras.layers.GlobalAveragePooling2D if len(x.shape) == 4 else keras.layers.Identity
    x = pooling(dtype="float32", name=pooled)(x)
    if config.embedding is not None:
        x = keras.layers.Dense(config.embedding, dtype="float32", name="features")(x)
    if head.normalised:
        x = BatchNorm(momentum=config.batch_norm_momentum, dtype="float32", name="head_norm")(x)
    return x


def _require_fit(config: NetworkConfig, images: Rows, augmentation: tuple[int, bool] | None) -> None:
    """Raises ValueError for arrays that are neither images nor vectors, and for those that the network cannot take."""
    network, kind = network_of(config.kind), (images.dtype.name, images.ndim)
    if kind not in (("uint8", 4), ("float32", 2)):
        raise ValueError(
            f"{images.dtype} of shape {images.shape}; images are uint8 (T, H, W, channels), vectors float32 (T, D)"
        )
    if images.ndim == 2 and not network.vectors:
        able = ", ".join(name for name, each in NETWORKS.items() if each.vectors)
        raise ValueError(f"{config.kind} takes images, and these are vectors of {images.shape[1]} values; use {able}")
    if images.ndim == 2 and augmentation is not None:
        raise ValueError("augmentation shifts and mirrors images, and these are vectors")
    if images.ndim == 4 and network.halves and min(images.shape[1:3]) < 2 ** (len(config.widths) - 1):
        raise ValueError(f"images of {images.shape[1:3]} pixels are too small for {len(config.widths)} widths")


def _scaled(x: Any, config: NetworkConfig, augmentation: tuple[int, bool] | None, precision: Precision) -> Any:
    """Images to pixels from 0 to 1, augmented; vectors (N, D) to columns of mean 0 and variance 1.

    The moving variance of vectors begins at 0 and ε is small: so no column's scale changes what comes out.
    """
    if len(x.shape) == 2:
        return BatchNorm(
            momentum=config.batch_norm_momentum,
            epsilon=1e-8,
            center=False,
            scale=False,
            moving_variance_initializer="zeros",
            dtype="float32",
            name="standardise",
        )(x)
    if augmentation is not None:
        x = Augmentation(*augmentation, name="augmentation")(x)
    return Scale(dtype=precision, name="scale")(x)


def reset_network(model: Any, params: Params, seed: int) -> None:
    """Give every layer the weights a fresh Keras model would draw from `seed`; the image table stays.

    The head begins a trial with `params`.
    Raises TypeError for a variable that it cannot redraw, which would keep the last trial's values, and ValueError if
    the parameters do not fit the head.
    """
    for layer, layer_seed in zip(model.layers, layer_seeds(model, seed), strict=True):
        if isinstance(layer, Augmentation):
            layer.begin(layer_seed)
        elif isinstance(layer, Head):
            layer.begin(params, layer_seed)
        elif not isinstance(layer, Table):
            redraw(layer, layer_seed)


def layer_seeds(model: Any, seed: int) -> list[int]:
    """One independent seed of 31 bits for each layer of `model`."""
    drawn = np.random.SeedSequence(seed).generate_state(len(model.layers))
    return [int(value) >> 1 for value in drawn]


def trainable_state(model: Any) -> list[Any]:
    """The variables that make up the state of training, optimiser and random state included, the table excluded.

    What a checkpoint holds; the images and their labels are not part of it.
    """
    tables = {id(layer.table) for layer in model.layers if isinstance(layer, Table)}
    weights = [variable for variable in model.variables if id(variable) not in tables]
    optimizer = getattr(model, "optimizer", None)
    return weights + (list(optimizer.variables) if optimizer is not None else [])
