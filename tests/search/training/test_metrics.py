import json
import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, recall_score

from affinity_search.search.training.metrics import METRICS, Scores, class_groups, score, softmax, value_of


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


def drawn(seed, n=300, n_classes=5):
    """Labels of all classes, guesses that are right half of the time, logits."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n - n_classes)])
    logits = rng.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[labels]
    return labels, logits.argmax(axis=1), logits


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn_on_everything_that_it_knows(seed):
    labels, predictions, _ = drawn(seed)
    scores = score(labels, predictions, 5)
    assert (np.array(scores.confusion) == confusion_matrix(labels, predictions)).all()
    assert scores.per_class_f1 == pytest.approx(f1_score(labels, predictions, average=None))
    assert scores["macro_f1"] == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predictions))
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, predictions))
    recalls = recall_score(labels, predictions, average=None)
    assert scores["geometric_mean"] == pytest.approx(math.prod(recalls) ** (1 / 5))
    assert scores["worst_recall"] == pytest.approx(recalls.min())
    assert value_of(scores, "worst_recall") == pytest.approx(1 - recalls.min())


@pytest.mark.parametrize("seed", range(5))
def test_shares_weigh_the_images_of_each_class(seed):
    """As scikit-learn does with shares[c] / support[c] as the weight of each image of class c."""
    labels, predictions, _ = drawn(seed)
    shares = np.random.default_rng(seed).uniform(0.5, 20, 5)
    scores = score(labels, predictions, 5, shares=shares)
    weights = (shares / np.bincount(labels))[labels]
    assert scores.per_class_f1 == pytest.approx(f1_score(labels, predictions, average=None, sample_weight=weights))
    assert scores.macro_f1 == pytest.approx(f1_score(labels, predictions, average="macro", sample_weight=weights))
    assert scores.accuracy == pytest.approx(accuracy_score(labels, predictions, sample_weight=weights))
    plain = score(labels, predictions, 5)
    for key in ("balanced_accuracy", "geometric_mean", "worst_recall"):
        assert scores[key] == pytest.approx(plain[key]), "recalls do not depend on the classes' shares"
    assert (scores.support, scores.confusion) == (plain.support, plain.confusion), "as they were counted"


def test_shares_of_the_support_change_nothing():
    labels, predictions, logits = drawn(1)
    plain = score(labels, predictions, 5, probabilities=softmax(logits))
    same = score(labels, predictions, 5, probabilities=softmax(logits), shares=plain.support)
    assert {key: same[key] for key in ("macro_f1", "accuracy", "calibration")} == pytest.approx(
        {key: plain[key] for key in ("macro_f1", "accuracy", "calibration")}
    )


def test_a_forgotten_class_makes_the_geometric_mean_and_the_worst_recall_zero():
    scores = score(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 0]), 2)
    assert scores["geometric_mean"] == scores["worst_recall"] == 0
    assert scores["balanced_accuracy"] == 0.5


def test_recalls_leave_out_a_class_without_images():
    scores = score(np.array([0, 0, 1]), np.array([0, 1, 1]), 3)
    assert scores["balanced_accuracy"] == 0.75
    assert scores["worst_recall"] == 0.5
    assert scores["geometric_mean"] == pytest.approx(math.sqrt(0.5))


EXPONENTIAL = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (EXPONENTIAL, ("many",) * 3 + ("medium",) * 3 + ("few",) * 4),
        ([500, 10, 500, 10], ("many", "few", "many", "few")),
        ([100] * 4, ("many",) * 4),
        ([100, 51], ("many",) * 2),
        ([100, 50], ("many", "few")),
        ([1000, 100, 10, 1], ("many", "many", "few", "few")),
        ([100, 0], ("many", "few")),
        ([0, 0], ("many",) * 2),
    ],
)
def test_groups_are_thirds_of_the_way_between_the_sizes(sizes, expected):
    assert class_groups(sizes) == expected


def test_recall_by_group():
    labels, predictions = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 0, 2, 0])
    scores = score(labels, predictions, 3, class_sizes=(900, 90, 10))
    assert (scores["recall_many"], scores["recall_few"]) == (1.0, 0.5)
    three = score(labels, np.array([0, 0, 1, 0, 0, 0]), 3, class_sizes=(1000, 30, 1))
    assert [three[f"recall_{group}"] for group in ("many", "medium", "few")] == [1.0, 0.5, 0.0]
    balanced = score(labels, predictions, 3, class_sizes=(5, 5, 5))
    assert balanced["recall_many"] == pytest.approx(2 / 3)
    with pytest.raises(KeyError):
        balanced["recall_few"]


def calibration_by_loop(labels, probabilities, weights):
    """Guo et al. 2017, eq. (3): bins ((b − 1) / 15, b / 15]."""
    error = 0.0
    for b in range(1, 16):
        inside = [i for i, row in enumerate(probabilities) if (b - 1) / 15 < max(row) <= b / 15]
        right = sum(weights[i] * (np.argmax(probabilities[i]) == labels[i]) for i in inside)
        sure = sum(weights[i] * max(probabilities[i]) for i in inside)
        error += abs(right - sure) / sum(weights)
    return 1 - error


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0, 1000.0])
def test_calibration_equals_the_loop_version(scale):
    labels, predictions, logits = drawn(2)
    probabilities = softmax(scale * logits)
    scores = score(labels, predictions, 5, probabilities=probabilities)
    assert scores["calibration"] == pytest.approx(calibration_by_loop(labels, probabilities, np.ones(len(labels))))
    shares = (9, 1, 2, 30, 4)
    weights = (shares / np.bincount(labels))[labels]
    weighted = score(labels, predictions, 5, probabilities=probabilities, shares=shares)
    assert weighted["calibration"] == pytest.approx(calibration_by_loop(labels, probabilities, weights))


def test_calibration_at_its_ends():
    labels = np.array([0, 1])
    for probabilities, expected in ((np.eye(2), 1.0), (np.eye(2)[::-1], 0.0), (np.full((2, 2), np.nan), 0.0)):
        assert score(labels, labels, 2, probabilities=probabilities)["calibration"] == expected
    with pytest.raises(KeyError):
        score(labels, labels, 2)["calibration"]


def test_probabilities_of_large_logits():
    assert softmax(np.float32([[1e30, 0], [-1e30, 0], [1, 1]])).tolist() == [[1, 0], [0, 1], [0.5, 0.5]]


def test_every_metric_survives_json():
    labels, predictions, logits = drawn(3)
    scores = score(labels, predictions, 5, class_sizes=(900, 700, 80, 9, 5), probabilities=softmax(logits))
    again = Scores.from_dict(json.loads(json.dumps(scores.to_dict())))
    assert {key: again[key] for key in METRICS} == {key: scores[key] for key in METRICS}
    assert all(0 <= again[key] <= 1 for key in METRICS)
    assert again == scores


def test_scores_of_an_earlier_version_are_still_read():
    plain = score(np.array([0, 1]), np.array([0, 1]), 2).to_dict()
    old = {key: value for key, value in plain.items() if key not in METRICS or key in ("macro_f1", "accuracy")}
    again = Scores.from_dict(old)
    assert again["macro_f1"] == 1
    with pytest.raises(KeyError):
        again["worst_recall"]
