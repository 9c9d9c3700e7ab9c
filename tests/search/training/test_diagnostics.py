"""What an epoch's diagnostics tell, against counting by hand."""

import numpy as np
import pytest

from affinity_search.search import devices

devices.configure("cpu", 2)

from keras import ops  # the device comes first

from affinity_search.search.training.heads.affinity import AffinityHead
from affinity_search.search.training.heads.affinity_diagnostics import Diagnostics, diagnose

N_CLASSES, M, ROOM, WIDTH = 4, 3, 5, 6


@pytest.fixture
def head():
    made = AffinityHead(N_CLASSES, ROOM)
    made.build((None, WIDTH))
    made.begin({"lambda": 0.5, "sigma": 20.0, "n_centers": M}, seed=1)
    made.begin_epoch()
    return made


def batch(seed, n=50):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (n, WIDTH)).astype("float32"), rng.integers(0, N_CLASSES, n)


def test_counts_over_several_batches_are_those_by_hand(head):
    centers = ops.convert_to_numpy(head.centers)[:, :M]
    nearest, hinges = np.zeros((N_CLASSES, M)), []
    for seed in (1, 2):
        features, labels = batch(seed)
        head(features, labels, training=True)
        distances = np.square(features[:, None, None] - centers[None]).sum(3)  # (N, C, m)
        d = np.exp(-distances.min(2) / 20.0)
        for i, label in enumerate(labels):
            nearest[label, distances[i, label].argmin()] += 1
            wrong = [max(0.0, 0.5 + d[i, j] - d[i, label]) for j in range(N_CLASSES) if j != label]
            hinges.append(sum(wrong))
    found = head.diagnostics()
    assert found.dead == tuple((nearest == 0).sum(1))
    assert found.hinge == pytest.approx(np.mean(hinges), rel=1e-4)
    assert found.inside == np.mean(np.array(hinges) > 0)
    assert found.n_centers == M
    assert found.diversity == pytest.approx(float(head.diversity_of(head.centers)), rel=1e-4)  # what is trained


def test_evaluation_and_a_head_without_labels_count_nothing(head):
    features, labels = batch(1)
    head(features, labels, training=False)
    head(features, training=True)
    assert head.diagnostics().dead == (M,) * N_CLASSES
    assert head.diagnostics().hinge == 0


def test_a_new_epoch_starts_from_nothing(head):
    head(*batch(1), training=True)
    first = head.diagnostics()
    head.begin_epoch()
    head(*batch(1), training=True)
    assert head.diagnostics() == first


def test_distances_between_centres_by_hand():
    """Two classes on a line: 0, 3 and 7, 8."""
    centers = np.float32([[[0], [3]], [[7], [8]]])
    found = diagnose(centers, np.float32([[5, 0], [1, 1]]), hinge=0.1, inside=0.2)
    assert (found.within, found.between, found.closest) == pytest.approx((2.0, (7 + 8 + 4 + 5) / 4, 4.0))
    assert found.dead == (1, 0)
    assert found.dead_share == 0.25


def test_one_centre_a_class_has_none_of_its_own_class_beside_it():
    found = diagnose(np.float32([[[0]], [[2]]]), np.float32([[1], [1]]), hinge=0, inside=0)
    assert found.within is None
    assert Diagnostics.from_dict(found.to_dict()) == found
