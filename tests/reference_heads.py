"""The losses of all heads once more, loop by loop in float64, to test the fast ones against.

Each takes labels, features (N, h), the head's trained weights, training images by class and a trial's parameters, and
gives the mean over the batch with everything that is added to it.
"""

import math

import numpy as np
from reference_affinity import affinity, diversity


def sizes_of(class_sizes):
    """A class without images counts as one of one image."""
    return [max(float(size), 1.0) for size in class_sizes]


def scaled(weights, class_sizes):
    """Of mean 1 over the training images."""
    sizes = sizes_of(class_sizes)
    mean = sum(n * w for n, w in zip(sizes, weights, strict=True)) / sum(sizes)
    return [w / mean for w in weights]


def power_weights(class_sizes, power):
    return scaled([n**-power for n in sizes_of(class_sizes)], class_sizes)


def effective_weights(class_sizes, one_minus_beta):
    """Cui et al. 2019, eq. (2): one over the effective number 1 + β + … + β^(n − 1)."""
    beta = 1.0 - one_minus_beta
    return scaled([1.0 / sum(beta**k for k in range(int(n))) for n in sizes_of(class_sizes)], class_sizes)


def margins(class_sizes, largest, power):
    sizes = sizes_of(class_sizes)
    return [largest * (min(sizes) / n) ** power for n in sizes]


def log_sum(values):
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def logits(features, kernel, bias):
    n_classes = kernel.shape[1]
    return [
        [bias[c] + sum(float(f) * float(kernel[k, c]) for k, f in enumerate(row)) for c in range(n_classes)]
        for row in features
    ]


def cross_entropy(z, y):
    return log_sum(z) - z[y]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def softmax(labels, features, weights, class_sizes, params):
    z = logits(features, *weights)
    return mean(cross_entropy(z[i], y) for i, y in enumerate(labels))


def weighted(labels, features, weights, class_sizes, params):
    w = power_weights(class_sizes, params["class_weight_power"])
    z = logits(features, *weights)
    return mean(w[y] * cross_entropy(z[i], y) for i, y in enumerate(labels))


def class_balanced(labels, features, weights, class_sizes, params):
    w = effective_weights(class_sizes, params["one_minus_beta"])
    z = logits(features, *weights)
    return mean(w[y] * cross_entropy(z[i], y) for i, y in enumerate(labels))


def focal(labels, features, weights, class_sizes, params):
    """1 − q as the others' share: 1 − q itself has no digits left near q = 1."""
    w = power_weights(class_sizes, params.get("class_weight_power", 0.0))
    total = []
    for z, y in zip(logits(features, *weights), labels, strict=True):
        others = log_sum([z[c] for c in range(len(z)) if c != y])
        rest = math.exp(others - log_sum(z))
        total.append(w[y] * rest ** params["gamma"] * cross_entropy(z, y))
    return mean(total)


def logit_adjusted(labels, features, weights, class_sizes, params):
    sizes = sizes_of(class_sizes)
    total = []
    for z, y in zip(logits(features, *weights), labels, strict=True):
        adjusted = [z[c] + params["tau"] * math.log(n / sum(sizes)) for c, n in enumerate(sizes)]
        total.append(cross_entropy(adjusted, y))
    return mean(total)


def ldam(labels, features, weights, class_sizes, params):
    (kernel,) = weights
    delta = margins(class_sizes, params["max_margin"], 0.25)
    total = []
    for f, y in zip(features, labels, strict=True):
        cosines = []
        for c in range(kernel.shape[1]):
            v = kernel[:, c]
            product = sum(a * b for a, b in zip(f, v, strict=True))
            cosines.append(product / math.sqrt(sum(a * a for a in f)) / math.sqrt(sum(b * b for b in v)))
        cosines[y] -= delta[y]
        total.append(cross_entropy([params["scale"] * each for each in cosines], y))
    return mean(total)


def affinity_head(labels, features, weights, class_sizes, params):
    """Eq. (7), with a margin of each image's own class."""
    centers = weights[0][:, : params["n_centers"]]
    d = affinity(features, centers, params["sigma"])
    by_class = margins(class_sizes, params["lambda"], params.get("margin_power", 0.0))
    hinges = [
        sum(max(0.0, by_class[y] + d[i, j] - d[i, y]) for j in range(d.shape[1]) if j != y)
        for i, y in enumerate(labels)
    ]
    return mean(hinges) + diversity(centers)


def joint(labels, features, weights, class_sizes, params):
    centers, *dense = weights
    beside = softmax(labels, features, dense, class_sizes, {})
    return affinity_head(labels, features, [centers], class_sizes, params) + params["softmax_share"] * beside


LOSSES = {
    "affinity": affinity_head,
    "joint": joint,
    "softmax": softmax,
    "weighted": weighted,
    "class_balanced": class_balanced,
    "focal": focal,
    "logit_adjusted": logit_adjusted,
    "ldam": ldam,
}


def weighted_by_image(name, image_weights, labels, features, weights, class_sizes, params):
    """The loss whose part of each image is multiplied by its weight; R(w) is of no image."""
    added = diversity(weights[0][:, : params["n_centers"]]) if "n_centers" in params else 0.0
    own = [LOSSES[name]([y], features[i : i + 1], weights, class_sizes, params) - added for i, y in enumerate(labels)]
    return mean(w * each for w, each in zip(image_weights, own, strict=True)) + added


def hinge_gap(features, centers, class_sizes, labels, params):
    """How near any hinge term is to its kink."""
    d = affinity(features, centers, params["sigma"])
    by_class = margins(class_sizes, params["lambda"], params.get("margin_power", 0.0))
    terms = [abs(by_class[y] + d[i, j] - d[i, y]) for i, y in enumerate(labels) for j in range(d.shape[1]) if j != y]
    return float(np.min(terms))
