import json

import numpy as np
import pytest
from sklearn.metrics import f1_score

from affinity_search.search.training.metrics import score


def test_scores_by_hand():
    """Class 0: precision 1/2, recall 1; class 1: 1, 1/2; class 2: 1, 1."""
    scores = score(np.array([0, 1, 1, 2]), np.array([0, 0, 1, 2]), 3, (True, False, True))
    assert scores.per_class_f1 == pytest.approx((2 / 3, 2 / 3, 1))
    assert scores.macro_f1 == pytest.approx(7 / 9)
    assert scores.accuracy == scores.micro_f1 == 0.75
    assert scores.minority_f1 == pytest.approx((2 / 3 + 1) / 2)
    assert scores.majority_f1 == pytest.approx(2 / 3)
    assert scores.support == (1, 2, 1)
    assert scores.confusion == ((1, 0, 0), (1, 1, 0), (0, 0, 1))


def test_without_small_classes_both_means_are_those_of_all():
    for minority in ((), (False,) * 3, (True,) * 3):
        scores = score(np.array([0, 1, 1, 2]), np.array([0, 0, 1, 2]), 3, minority)
        assert scores.minority_f1 == scores.majority_f1 == scores.macro_f1


def test_a_class_never_seen_nor_predicted_costs():
    assert score(np.array([0, 1]), np.array([0, 1]), 4).macro_f1 == 0.5


def test_agrees_with_scikit_learn_on_random_labels():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 10, (2, 500))
    scores = score(labels, predictions, 10)
    assert scores.macro_f1 == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert scores.micro_f1 == pytest.approx(f1_score(labels, predictions, average="micro"))


def test_to_dict_is_plain_json():
    plain = score(np.int32([0, 1]), np.int64([0, 1]), 2).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert type(plain["macro_f1"]) is float


@pytest.mark.parametrize("predictions", [[0], []])
def test_unequal_or_no_labels_are_refused(predictions):
    with pytest.raises(ValueError, match="predictions"):
        score(np.array([0, 1] if predictions else []), np.array(predictions), 2)
