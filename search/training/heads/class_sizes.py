"""What the rivals of the affinity loss make of the numbers of training images; plain NumPy, float64.

n (C,) are the training images of each class. A class without any counts as one of one image: it has no loss to weigh,
and no logarithm.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def _sizes(class_sizes: Sequence[int]) -> Floats:
    n: Floats = np.maximum(np.asarray(class_sizes, "float64"), 1.0)
    return n


def normalised(weights: Floats, class_sizes: Sequence[int]) -> Floats:
    """The weights (C,), divided so that their mean over the training images is 1: Σ n_c w_c = Σ n_c."""
    n = _sizes(class_sizes)
    scaled: Floats = weights * n.sum() / (n * weights).sum()
    return scaled


def power_weights(class_sizes: Sequence[int], power: float) -> Floats:
    """w_c ∝ n_c^(−p), (C,), of mean 1 over the training images. p = 1 is the inverse frequency."""
    n = _sizes(class_sizes)
    return normalised((n / n.max()) ** -power, class_sizes)


def effective_weights(class_sizes: Sequence[int], one_minus_beta: float) -> Floats:
    """w_c ∝ (1 − β) / (1 − β^n_c), (C,), of mean 1 over the training images. Cui et al. 2019, eq. (2) and section 4."""
    n = _sizes(class_sizes)
    # 1 − β^n without the digits that 1 − (nearly 1) loses.
    log_beta = np.log1p(-one_minus_beta) if one_minus_beta < 1 else -np.inf
    return normalised(one_minus_beta / -np.expm1(n * log_beta), class_sizes)


def log_shares(class_sizes: Sequence[int]) -> Floats:
    """log π_c, (C,): π_c = n_c / Σ n."""
    n = _sizes(class_sizes)
    logs: Floats = np.log(n / n.sum())
    return logs


def relative_margins(class_sizes: Sequence[int], power: float) -> Floats:
    """(n_min / n_c)^power, (C,), each in (0, 1]. With 1/4 the margins of LDAM, Cao et al. 2019, eq. (13)."""
    n = _sizes(class_sizes)
    margins: Floats = (n.min() / n) ** power
    return margins
