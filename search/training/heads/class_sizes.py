"""What the rivals of the affinity loss make of the numbers of training images; plain NumPy, float64.

n (C,) are the training images of each class. A class without any counts as one of one image: it has no loss to weigh,
and no logarithm.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def _sizes(class_sizes: Sequence[int]) -> NDArray[np.float64]:
    return np.maximum(np.asarray(class_sizes, "float64"), 1.0)


def normalised(weights: NDArray[np.float64], class_sizes: Sequence[int]) -> NDArray[np.float64]:
    """The weights (C,), divided so that their mean over the training images is 1: Σ n_c w_c = Σ n_c."""
    n = _sizes(class_sizes)
    return weights * n.sum() / (n * weights).sum()


def power_weights(class_sizes: Sequence[int], power: float) -> NDArray[np.float64]:
    """w_c ∝ n_c^(−p), (C,), of mean 1 over the training images. p = 1 is the inverse frequency."""
    n = _sizes(class_sizes)
    return normalised((n / n.max()) ** -power, class_sizes)


def effective_weights(class_sizes: Sequence[int], one_minus_beta: float) -> NDArray[np.float64]:
    """w_c ∝ (1 − β) / (1 − β^n_c), (C,), of mean 1 over the training images. Cui et al. 2019, eq. (2) and section 4."""
    n = _sizes(class_sizes)
    # 1 − β^n without the digits that 1 − (nearly 1) loses.
    log_beta = np.log1p(-one_minus_beta) if one_minus_beta < 1 else -np.inf
    return normalised(one_minus_beta / -np.expm1(n * log_beta), class_sizes)


def log_shares(class_sizes: Sequence[int]) -> NDArray[np.float64]:
    """log π_c, (C,): π_c = n_c / Σ n."""
    n = _sizes(class_sizes)
    return np.log(n / n.sum())


def relative_margins(class_sizes: Sequence[int], power: float) -> NDArray[np.float64]:
    """(n_min / n_c)^power, (C,), each in (0, 1]. With 1/4 the margins of LDAM, Cao et al. 2019, eq. (13)."""
    n = _sizes(class_sizes)
    return (n.min() / n) ** power
