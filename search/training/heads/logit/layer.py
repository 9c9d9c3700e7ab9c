"""What the heads have in common that end in one dense layer of logits, and differ in the loss alone."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from affinity_search.search.training.heads.base import Head, Params, Tensor, redraw, require, require_amounts, setting


def cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
    """−log softmax(z)_y of labels (N,) or (N, 1) and logits z (N, C), shape (N,)."""
    return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def of_class(values: Tensor, labels: Tensor) -> Tensor:
    """values[y], (N,), of values (C,) and labels (N,) or (N, 1)."""
    return ops.take(values, ops.cast(ops.reshape(labels, (-1,)), "int32"), axis=0)


def own_class(labels: Tensor, n_classes: int) -> Tensor:
    """1 for an image's own class and else 0, float32 (N, C), of labels (N,) or (N, 1)."""
    return ops.one_hot(ops.cast(ops.reshape(labels, (-1,)), "int32"), n_classes, dtype="float32")


class LogitHead(Head, keras.layers.Dense):  # type: ignore[misc]
    """Features (N, h) in, logits z (N, C) out.

    A head names its parameters with a trial's first values in `starts`. It says in `settings_of` what they make of the
    class sizes: numbers and arrays for the loss, each kept in a variable of that name.
    """

    logits = True
    starts: ClassVar[dict[str, float]] = {}
    optional: ClassVar[tuple[str, ...]] = ()  # what a trial may leave out: it is then as in `starts`

    def __init__(self, class_sizes: Sequence[int], **options: Any) -> None:
        """`class_sizes` are the training images of each class; the head's parameters may stand among the options.

        Raises ValueError for a parameter that is negative or not finite.
        """
        self._given = {key: float(options.pop(key, start)) for key, start in self.starts.items()}
        require_amounts(self._given, *self._given)
        super().__init__(len(class_sizes), **{"dtype": "float32"} | options)
        self.class_sizes = tuple(int(size) for size in class_sizes)

    @classmethod
    def make(cls, class_sizes: Sequence[int], room: int) -> Self:
        """As `Head.make`."""
        return cls(class_sizes, name="head")

    def get_config(self) -> dict[str, Any]:
        """For Keras, which makes the layer anew from it; parameters of a later `begin` are among the saved weights."""
        plain = {key: value for key, value in super().get_config().items() if key not in ("units", "dtype")}
        return {**plain, "class_sizes": list(self.class_sizes), **self._given}

    def save_own_variables(self, store: Any) -> None:
        """All of them: a Dense layer knows of its kernel and bias alone, and leaves the settings out."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        """What `save_own_variables` stored."""
        keras.layers.Layer.load_own_variables(self, store)

    def settings_of(self, params: Params) -> dict[str, float | NDArray[Any]]:
        """What the loss reads, by name: always the same names and shapes."""
        return {}

    def build(self, features_shape: tuple[int | None, ...]) -> None:
        """Create kernel, bias and the variables that hold the settings."""
        super().build(features_shape)
        self.settings = {name: setting(self, name, value) for name, value in self.settings_of(self._given).items()}

    def begin(self, params: Params, seed: int) -> None:
        """Set the trial's parameters, those of `starts`, and draw fresh weights from `seed`.

        Raises ValueError for other ones, and for one that is negative or not finite.
        """
        require(params, *(key for key in self.starts if key not in self.optional), optional=self.optional)
        require_amounts(params, *params)
        left_out = {key: self.starts[key] for key in self.optional}
        for name, value in self.settings_of({**left_out, **params}).items():
            self.settings[name].assign(np.asarray(value, "float32"))
        redraw(self, seed, keep=self.settings.values())

    def loss(self, labels: Tensor, scores: Tensor) -> Tensor:
        """Cross-entropy of the softmax of the logits, (N,)."""
        return cross_entropy(labels, scores)
