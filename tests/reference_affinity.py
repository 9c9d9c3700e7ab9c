"""The affinity loss once more, loop by loop in float64, to test the fast one against. Unpadded centres (C, m, h)."""

import numpy as np


def squared_distance(a, b):
    return float(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def affinity(features, centers, sigma):
    """Eq. (3)."""
    result = np.zeros((len(features), len(centers)))
    for i, f in enumerate(features):
        for j, of_class in enumerate(centers):
            result[i, j] = max(np.exp(-squared_distance(f, w) / sigma) for w in of_class)
    return result


def hinge_loss(labels, d, margin):
    """Eq. (4), averaged over the samples."""
    total = 0.0
    for i, y in enumerate(labels):
        total += sum(max(0.0, margin + d[i, j] - d[i, y]) for j in range(d.shape[1]) if j != y)
    return total / len(labels)


def diversity(centers):
    """Eq. (6)."""
    flat = [w for of_class in centers for w in of_class]
    distances = [squared_distance(flat[a], flat[b]) for a in range(len(flat)) for b in range(a + 1, len(flat))]
    if not distances:
        return 0.0
    mean = sum(distances) / len(distances)
    return sum((distance - mean) ** 2 for distance in distances) / len(distances)


def total_loss(labels, features, centers, margin, sigma):
    """Eq. (7)."""
    return hinge_loss(labels, affinity(features, centers, sigma), margin) + diversity(centers)


def numerical_gradient(function, at, step=1e-6):
    """Central differences of a scalar function of an array."""
    gradient = np.zeros(at.shape)
    for index in np.ndindex(*at.shape):
        there, back = at.copy(), at.copy()
        there[index] += step
        back[index] -= step
        gradient[index] = (function(there) - function(back)) / (2 * step)
    return gradient


def nearest_gap(features, centers):
    """The smallest difference between the distances to the nearest and second nearest centre of a class."""
    if centers.shape[1] == 1:
        return np.inf
    distances = ((features[:, None, None] - centers[None]) ** 2).sum(-1)
    ordered = np.sort(distances, axis=2)
    return float((ordered[:, :, 1] - ordered[:, :, 0]).min())


def hinge_gap(labels, d, margin):
    """How near any hinge term is to its kink."""
    own = d[np.arange(len(labels)), labels][:, None]
    terms = np.abs(margin + d - own)
    terms[np.arange(len(labels)), labels] = np.inf
    return float(terms.min())
