"""The affinity loss and its head.

Notation. Equation numbers are those of koshian2's article on Hayat et al. 2019 (arXiv 1901.07711).

    N, C, h   batch size, classes, feature width
    m         centres per class of this trial
    M         centres per class the head has room for, M ≥ m: one compiled head serves every m of a search
    f         (N, h)    features entering the head
    w         (C, M, h) class centres; those from m on are padding and stay zero
    used      (M,)      1 for t < m, 0 for padding
    σ         scalar    width of the Gaussian affinity, > 0
    λ         scalar    margin between classes, in affinity units, (0, 1]
    λ_c       (C,)      λ (n_min / n_c)^q: the margin by class, ours; q = 0 is the article's one margin
    d         (N, C)    affinity of each sample to each class, in [0, 1]
    y         (N,)      class of each sample
    P         scalar    pairs of centres, mC(mC − 1)/2

λ_c, σ and `used` are variables, not constants, so that a new trial compiles nothing. Distances use the matrix form
‖a‖² − 2 a·b + ‖b‖²: the (N, C, m, h) array of differences would not fit for many centres.
"""

import math
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from affinity_search.search.devices.precision import exact_products
from affinity_search.search.training.heads.affinity_diagnostics import Diagnostics
from affinity_search.search.training.heads.affinity_watch import Watch
from affinity_search.search.training.heads.base import Head, Params, Tensor, require, require_amounts, setting
from affinity_search.search.training.heads.class_sizes import relative_margins

# Stands for the distance to a centre that does not exist: no real one is farther, and it is finite in float32.
FAR = 3e38
ARTICLE_SIGMA, ARTICLE_MARGIN = 10.0, 0.75
# Below it 1/σ overflows float32, and 0 · ∞ would make NaN gradients.
SMALLEST_SIGMA = 1e-30
# Of the standard normal without what lies beyond CUT.
CUT = 2.0
CUT_DEVIATION = 0.8796256610342398


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖a_i − b_j‖² for a (A, h) and b (B, h), shape (A, B); rounding below 0 is clamped, with gradient 0 there."""
    with exact_products():
        cross = ops.matmul(a, ops.transpose(b))
    a_norms = ops.sum(ops.square(a), axis=1)[:, None]
    b_norms = ops.sum(ops.square(b), axis=1)[None, :]
    return ops.maximum(a_norms - 2.0 * cross + b_norms, 0.0)


def center_distances(features: Tensor, centers: Tensor, used: Tensor) -> Tensor:
    """‖f_i − w_jt‖², shape (N, C, M); padding is FAR away."""
    n_classes, room, width = centers.shape
    distances = squared_distances(features, ops.reshape(centers, (n_classes * room, width)))
    return ops.where(used > 0, ops.reshape(distances, (-1, n_classes, room)), FAR)


def affinity_of(distances: Tensor, sigma: Tensor) -> Tensor:
    """d (N, C) of `center_distances`: exp falls, so the max of exp is exp of the min."""
    return ops.exp(-ops.min(distances, axis=2) / ops.maximum(sigma, SMALLEST_SIGMA))


def affinity(features: Tensor, centers: Tensor, used: Tensor, sigma: Tensor) -> Tensor:
    """d[i, j] = max over used t of exp(−‖f_i − w_jt‖² / σ), shape (N, C). Eq. (8); with m = 1 eq. (3)."""
    return affinity_of(center_distances(features, centers, used), sigma)


def hinge_per_sample(labels: Tensor, affinity: Tensor, margin: Tensor) -> Tensor:
    """L_mm[i] = Σ over j ≠ y_i of max(0, λ + d[i, j] − d[i, y_i]), shape (N,). Eq. (4).

    `margin` is λ, or (C,): then an image has the margin of its own class.
    """
    right = ops.one_hot(ops.cast(labels, "int32"), affinity.shape[1], dtype="float32")
    own = ops.sum(affinity * right, axis=1, keepdims=True)
    margin = ops.sum(margin * right, axis=1, keepdims=True)
    return ops.sum((1.0 - right) * ops.maximum(margin + affinity - own, 0.0), axis=1)


def hinge_loss(labels: Tensor, affinity: Tensor, margin: Tensor) -> Tensor:
    """Eq. (4) averaged over the batch: labels (N,) integers, affinity (N, C), margin λ; a scalar."""
    return ops.mean(hinge_per_sample(labels, affinity, margin))


def diversity(centers: Tensor, used: Tensor) -> Tensor:
    """R(w): the variance of ‖w_a − w_b‖² over all P pairs a < b of the mC used centres; a scalar. Eq. (6).

    One centre alone has no pair: 0.
    """
    n_classes, room, width = centers.shape
    n = n_classes * room
    flat = ops.reshape(centers, (n, width))
    used = ops.tile(used, (n_classes,))
    pairs = used[:, None] * used[None, :] * np.triu(np.ones((n, n), "float32"), k=1)
    n_pairs = ops.maximum(ops.sum(pairs), 1.0)
    distances = squared_distances(flat, flat)
    mean = ops.sum(pairs * distances) / n_pairs  # μ
    return ops.sum(pairs * ops.square(distances - mean)) / n_pairs


def initial_centers(n_classes: int, n_centers: int, max_centers: int, width: int, seed: int) -> NDArray[np.float32]:
    """Truncated normal of standard deviation √(2 / (C·m)), padded with zeros to (C, M, h).

    Distributed as the reference's he_normal on a (C, m, h) array, whose fan-in is C·m. Drawn here and not on the
    device, because JAX would compile the drawing anew for every m.
    """
    random = np.random.default_rng(seed)
    drawn = random.standard_normal((n_classes, n_centers, width))
    while (beyond := np.abs(drawn) > CUT).any():
        drawn[beyond] = random.standard_normal(int(beyond.sum()))
    drawn *= math.sqrt(2.0 / (n_classes * n_centers)) / CUT_DEVIATION
    return np.pad(drawn.astype("float32"), ((0, 0), (0, max_centers - n_centers), (0, 0)))


def _check(n_centers: int, room: int, sigma: float, margin: float) -> None:
    if not 1 <= n_centers <= room:
        raise ValueError(f"n_centers is {n_centers}; this head has room for 1 to {room}")
    if not (0 < sigma < float("inf") and 0 < margin < float("inf")):
        raise ValueError(f"sigma is {sigma} and lambda {margin}; both must be above 0 and finite")


@keras.saving.register_keras_serializable(package="affinity_search")
class AffinityLoss(keras.losses.Loss):  # type: ignore[misc]
    """Eq. (4) of labels (N,) or (N, 1) and affinities (N, C), for `model.compile(loss=AffinityLoss(margin))`.

    With R(w), which an `AffinityHead` adds to its model's loss, the total is eq. (7).
    """

    def __init__(self, margin: float = ARTICLE_MARGIN, name: str = "affinity_loss", **options: Any) -> None:
        """`margin` is λ, above 0."""
        super().__init__(name=name, **options)
        self.margin = margin

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Per sample, (N,)."""
        return hinge_per_sample(ops.reshape(y_true, (-1,)), y_pred, ops.cast(self.margin, "float32"))

    def get_config(self) -> dict[str, Any]:
        """For Keras, which makes the loss anew from it."""
        return {**super().get_config(), "margin": self.margin}


@keras.saving.register_keras_serializable(package="affinity_search")
class AffinityHead(Head, keras.layers.Layer):  # type: ignore[misc]
    """Features (N, h) in, affinities (N, C) out; adds R(w), eq. (6), to the model's loss.

    Put a batch norm before it, as the article does: σ is a squared distance between features. The predicted class is
    the argmax. Given the labels too, it keeps count in training of what `diagnostics` tells of an epoch.
    Always float32: a mixed policy's bfloat16 features are cast on entry, as exp(−distance) needs the digits.
    """

    normalised = True
    takes_labels = True

    def __init__(
        self,
        n_classes: int,
        n_centers: int = 1,
        sigma: float = ARTICLE_SIGMA,
        margin: float = ARTICLE_MARGIN,
        class_sizes: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        """C classes with m = `n_centers` centres each, width σ; `margin` λ is for `loss`. Defaults are the article's.

        `begin` may change σ, λ and m later, m to at most `n_centers`: that is the head's room M. It may also give each
        class a margin by its number of training images, n_c of `class_sizes`.
        Raises ValueError unless n_centers is 1 or more and σ and λ are above 0 and finite.
        """
        super().__init__(dtype="float32", **options)
        _check(n_centers, n_centers, sigma, margin)
        self.n_classes = n_classes
        self.max_centers = n_centers
        self.class_sizes = tuple(class_sizes or (1,) * n_classes)
        self._given = {"sigma": sigma, "margin": margin, "class_sizes": self.class_sizes}

    @classmethod
    def make(cls, class_sizes: Sequence[int], room: int) -> Self:
        """As `Head.make`."""
        return cls(len(class_sizes), room, class_sizes=class_sizes, name="head")

    def get_config(self) -> dict[str, Any]:
        """For Keras, which makes the layer anew from it; σ, λ and m of a later `begin` are among the saved weights."""
        own = {"n_classes": self.n_classes, "n_centers": self.max_centers, **self._given}
        return {**{key: value for key, value in super().get_config().items() if key != "dtype"}, **own}

    def build(self, features_shape: tuple[int | None, int], labels_shape: Any = None) -> None:
        """Create the centres and the trial's λ, σ and mask for features of shape (N, h)."""
        # R(w) is a regulariser of its variable. By Keras' `add_loss` the copies of a network on several CPUs, which
        # are threads, would write to one list, and each would add up the others' R(w) too.
        self.centers = self.add_weight(
            shape=(self.n_classes, self.max_centers, features_shape[-1]),
            initializer="he_normal",
            regularizer=self.diversity_of,
            name="centers",
        )

        self.sigma = setting(self, "sigma", self._given["sigma"])
        self.margin = setting(self, "lambda", np.full(self.n_classes, self._given["margin"]))
        self.used = setting(self, "used", np.ones(self.max_centers))
        self.watch = Watch(self, self.n_classes, self.max_centers)

    def call(self, features: Tensor, labels: Tensor = None, training: bool = False) -> Tensor:
        """Affinities d (N, C), eq. (8); `labels` (N,) integers are for the diagnostics alone."""
        centers, used = ops.convert_to_tensor(self.centers), ops.convert_to_tensor(self.used)
        distances = center_distances(ops.cast(features, "float32"), centers, used)
        affinity = affinity_of(distances, ops.convert_to_tensor(self.sigma))
        if training and labels is not None:
            self.watch.count(labels, distances, self.loss(labels, affinity))
        return affinity

    def diversity_of(self, centers: Tensor) -> Tensor:
        """R(w), eq. (6), of this trial's centres among `centers` (C, M, h)."""
        return diversity(ops.convert_to_tensor(centers), ops.convert_to_tensor(self.used))

    def loss(self, labels: Tensor, affinity: Tensor) -> Tensor:
        """Eq. (4) per sample, (N,), with this trial's λ; with the added R(w) the total is eq. (7)."""
        return hinge_per_sample(labels, affinity, ops.convert_to_tensor(self.margin))

    def begin(self, params: Params, seed: int) -> None:
        """Start a trial: its `lambda`, `sigma` and `n_centers`, and fresh centres from `seed`.

        `margin_power` is q of the margins by class, 0 where it is left out. Nothing is traced or compiled again. Raises
        ValueError unless the three are given, 1 ≤ n_centers ≤ max_centers, λ and σ are above 0 and q is not below.
        """
        require(params, "lambda", "sigma", "n_centers", optional=("margin_power",))
        lambda_, sigma, n_centers = params["lambda"], params["sigma"], int(params["n_centers"])
        _check(n_centers, self.max_centers, sigma, lambda_)
        power = params.get("margin_power", 0.0)
        require_amounts({"margin_power": power}, "margin_power")
        width = self.centers.shape[-1]
        self.centers.assign(initial_centers(self.n_classes, n_centers, self.max_centers, width, seed))
        self.sigma.assign(sigma)
        margins = lambda_ * relative_margins(self.class_sizes, power)
        self.margin.assign(margins.astype("float32"))
        self.used.assign((np.arange(self.max_centers) < n_centers).astype("float32"))

    def begin_epoch(self) -> None:
        """Count from 0 what the diagnostics tell."""
        self.watch.reset()

    def points(self) -> NDArray[np.float32]:
        """The trial's centres, (C, m, h)."""
        n_centers = int(ops.convert_to_numpy(self.used).sum())
        centers: NDArray[np.float32] = ops.convert_to_numpy(self.centers)[:, :n_centers]
        return centers

    def diagnostics(self) -> Diagnostics:
        """Of the present epoch, with the present centres."""
        return self.watch.read(self.points())
