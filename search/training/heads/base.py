"""What every head has, beside being a Keras layer from features (N, h) to class scores (N, C)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
from numpy.typing import NDArray

from affinity_search.search.devices.precision import exact_products
from affinity_search.search.training.heads.affinity_diagnostics import Diagnostics

Tensor = Any  # of whichever backend Keras runs on
Params = Mapping[str, float | int]  # of a trial, by the names of the head's parameters


class Head:
    """Named before the Keras layer among a head's bases: `class MyHead(Head, keras.layers.Layer)`.

    What a trial sets is kept in variables, so that the next trial compiles nothing. The predicted class is the argmax
    of the scores.
    """

    normalised = False  # whether the network puts a batch norm before it
    logits = False  # whether the scores are logits, of which a softmax makes probabilities
    takes_labels = False  # whether `call` is given labels (N,) after the features, to count what training does

    @classmethod
    def make(cls, class_sizes: Sequence[int], room: int) -> Self:
        """For a network of the search: float32 in any precision, and of the name "head".

        `class_sizes` are the training images of each class, `room` is the largest that a parameter which sizes arrays
        will be.
        """
        raise NotImplementedError

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """As the Keras layer's own; on JAX its products are those of float32 on any device."""
        with exact_products():
            return super().__call__(*inputs, **options)  # type: ignore[misc]

    def loss(self, labels: Tensor, scores: Tensor) -> Tensor:
        """Per sample, (N,), of labels (N,) or (N, 1) and scores (N, C), or whatever `call` gives in training.

        All that depends on a sample belongs here: a sample's weight multiplies it. What depends on weights alone may be
        a variable's regulariser. Not `add_loss`: see `AffinityHead.build`.
        """
        raise NotImplementedError

    def begin(self, params: Params, seed: int) -> None:
        """Start a trial: set its parameters, and draw fresh weights from `seed` alone.

        Raises ValueError if the parameters are not those of the head, or not possible.
        """
        raise NotImplementedError

    def begin_epoch(self) -> None:
        """Called before the first step of each epoch."""

    def diagnostics(self) -> Diagnostics | None:
        """What the loss did in the epoch that is over; None for a head that does not tell."""
        return None

    def points(self) -> NDArray[np.float32] | None:
        """Points (C, m, h) among the features that pictures show, such as class centres; None where there are none."""
        return None


def require(params: Params, *keys: str, optional: Sequence[str] = ()) -> None:
    """Raises ValueError unless the parameters are just these, the optional ones or not."""
    if not set(keys) <= set(params) <= {*keys, *optional}:
        wanted, given = (", ".join(each) or "no parameters" for each in (keys, params))
        raise ValueError(f"the head takes {wanted}, and was given {given}")


def require_amounts(params: Params, *keys: str) -> None:
    """Raises ValueError unless each of these is 0 or more, and finite."""
    for key in keys:
        if not 0 <= params[key] < float("inf"):
            raise ValueError(f"{key} is {params[key]}; it must be 0 or more, and finite")


def setting(layer: Any, name: str, value: Any) -> Any:
    """A float32 variable of the layer that is not trained: what a trial sets, of the shape of its first value.

    Settings are variables and not constants, so that a new trial compiles nothing.
    """
    value = np.asarray(value, "float32")
    start = keras.initializers.Constant(value)
    return layer.add_weight(shape=value.shape, initializer=start, trainable=False, name=name)


def redraw(layer: Any, seed: int, keep: Iterable[Any] = ()) -> None:
    """Draw every variable of a Keras layer anew but those of `keep`, from its initializer, named after the variable.

    Raises TypeError for a variable without one, which would keep the last trial's values.
    """
    kept = {id(variable) for variable in keep}
    for position, variable in enumerate(layer.variables):
        if id(variable) in kept:
            continue
        initializer: Any = getattr(layer, f"{variable.name}_initializer", None)
        if initializer is None or id(getattr(layer, variable.name, None)) != id(variable):
            raise TypeError(
                f"layer {layer.name!r} ({type(layer).__name__}) would keep {variable.path!r} of the last trial; "
                f"give it an attribute {variable.name}_initializer, or a branch of its own in reset_network"
            )
        config = initializer.get_config()
        if "seed" in config:
            config["seed"] = seed + position  # two variables of one layer are not drawn alike
        variable.assign(type(initializer).from_config(config)(variable.shape, dtype=variable.dtype))
