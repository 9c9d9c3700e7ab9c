"""What a study may say of its head, optimiser and metric, and that studies stored before stay what they were."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from test_spec import REMOVED, changed

from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.files import load, overridden
from affinity_search.studies.heads import HEADS
from affinity_search.studies.model.parameters import Constant, RealRange
from affinity_search.studies.model.spec import StudySpec, fingerprint, fingerprint_differences, widening_differences

STUDY = """
trials = 5
[data]
set = "digits"
minority = 10
[network]
widths = [4]
head = "{head}"
[training]
epochs = 3
batch = 64
{training}
{space}
"""
LOGIT_HEADS = [name for name, head in HEADS.items() if head.logits]
ABLE = "softmax, weighted, class_balanced, focal, logit_adjusted or ldam"


def written(folder: Path, head: str, training: str = "", space: str = "") -> str:
    path = folder / "own.toml"
    path.write_text(STUDY.format(head=head, training=training, space=space), encoding="utf-8")
    return str(path)


def mistakes(source: str, *overrides: str) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        load(source, list(overrides))
    return caught.value.mistakes


def study(changes: dict[str, Any] | None = None) -> StudySpec:
    return StudySpec.from_dict(changed(changes or {}))


@pytest.mark.parametrize("head", HEADS)
def test_a_head_without_a_space_has_the_recommended_one(head: str, tmp_path: Path) -> None:
    spec = load(written(tmp_path, head))
    assert spec.space is not None
    own = [each.key for each in HEADS[head].parameters if not each.asked]
    assert spec.searched == [*own, "learning_rate"]
    assert spec.space["learning_rate"] == RealRange(low=1e-4, high=1e-2, log=True)
    for key in own:
        declared = next(each for each in HEADS[head].parameters if each.key == key)
        assert spec.to_dict()["space"][key].items() >= tomllib.loads(f"value = {declared.recommended}")["value"].items()
    assert load(written(tmp_path, "affinity"), [f"network.head={head}"]).space == spec.space
    assert StudySpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize("head", HEADS)
def test_a_fixed_learning_rate_is_not_searched(head: str, tmp_path: Path) -> None:
    spec = load(written(tmp_path, head, "learning_rate = 2e-3"))
    own = [each.key for each in HEADS[head].parameters if not each.asked]
    assert spec.searched == own
    assert spec.training.learning_rate == 2e-3
    assert (spec.space is None) == (not own), "nothing to search is no space"


def test_space_none_takes_the_recommended_one_of_another_head(tmp_path: Path) -> None:
    source = written(tmp_path, "affinity", "", "[space]\nlambda = 0.5\nsigma = 10\nn_centers = 2\nlearning_rate = 0.01")
    for override in ("network.head=focal", "network.head=ldam"):
        assert any("--set space=none takes the recommended space" in line for line in mistakes(source, override))
    assert load(source, ["network.head=focal", "space=none"]).searched == [
        *("gamma", "class_weight_power", "learning_rate")
    ]
    both = load(source, ["network.head=softmax", "space=none", "training.learning_rate=0.01"])
    assert both.space is None
    assert overridden(load(source), []).space == load(source).space, "a stored study's does not change by itself"


def test_some_keys_may_be_left_out_of_a_space() -> None:
    without = study()
    assert without.searched == ["lambda", "sigma", "n_centers"]
    whole = study({"space.margin_power": {"low": 0, "high": 0.5}, "space.weight_decay": 1e-4})
    assert whole.searched == ["lambda", "sigma", "n_centers", "margin_power", "weight_decay"], "as they are declared"
    assert whole.space is not None
    assert whole.space["margin_power"] == RealRange(low=0.0, high=0.5)
    assert whole.space["weight_decay"] == Constant(value=1e-4)
    focal = study({"network.head": "focal", "space": {"gamma": 2}})
    assert focal.searched == ["gamma"]
    given = {"gamma": 2, "learning_rate": 1, "weight_decay": 0}
    spec = study({"network.head": "focal", "space": given, "training.learning_rate": REMOVED})
    assert spec.space is not None
    assert spec.space.typed(given) == given
    assert [type(value) for value in spec.space.typed(given).values()] == [float] * 3


@pytest.mark.parametrize("head", HEADS)
def test_what_a_head_requires_is_named_where_it_is_missing(head: str) -> None:
    required = [each for each in HEADS[head].parameters if each.default is None]
    with_nothing = {"network.head": head, "space": {"weight_decay": 0.1}}
    if not required:
        assert study(with_nothing).searched == ["weight_decay"]
        return
    with pytest.raises(StudyFileError) as caught:
        study(with_nothing)
    assert caught.value.mistakes == [f"space.{each.key}: missing; allowed: {each.allowed}" for each in required]


def test_the_learning_rate_stands_in_one_of_two_places(tmp_path: Path) -> None:
    rate = "[space]\nlearning_rate = { low = 1e-4, high = 1e-2, log = true }"
    assert load(written(tmp_path, "softmax", "", rate)).training.learning_rate is None
    twice = written(tmp_path, "softmax", "learning_rate = 1e-3", rate)
    assert mistakes(twice) == [
        "training.learning_rate: stands in [space] too; keep one of them "
        "(--set training.learning_rate=none takes this one out)"
    ]
    assert load(twice, ["training.learning_rate=none"]).searched == ["learning_rate"]
    neither = written(tmp_path, "softmax", "", "[space]\nweight_decay = 0.1")
    assert mistakes(neither) == [
        "training.learning_rate: missing; allowed: a number above 0 and up to 10, here or as a range in [space]"
    ]


@pytest.mark.parametrize("head", HEADS)
def test_the_key_of_another_head_is_told_with_what_is_allowed(head: str, tmp_path: Path) -> None:
    keys = {each.key: name for name, one in HEADS.items() for each in one.parameters}
    own = {each.key for each in HEADS[head].parameters}
    source = written(tmp_path, head)
    for key in keys.keys() - own:
        line = next(line for line in mistakes(source, f"space.{key}=1") if line.startswith(f"space.{key}:"))
        owners = [name for name, one in HEADS.items() if key in [each.key for each in one.parameters]]
        assert line.startswith(f"space.{key}: a setting of "), line
        assert all(owner in line.partition(", which the")[0] for owner in owners)
        assert f"which the {head} head has not; it takes " in line
        assert all(each.key in line.partition("it takes ")[2] for each in HEADS[head].searchable)


def test_a_key_of_no_head_is_unknown(tmp_path: Path) -> None:
    source = written(tmp_path, "focal", "", "[space]\ngamma = 1\nlearning_rate = 0.1\ngama = 2")
    assert mistakes(source) == ["space.gama: unknown key; did you mean space.gamma?"]


@pytest.mark.parametrize("head", ["affinity", "joint"])
def test_what_needs_probabilities_is_refused_without_them(head: str, tmp_path: Path) -> None:
    source = written(tmp_path, head)
    assert mistakes(source, "metric=calibration") == [
        f"metric: calibration needs probabilities, and the {head} head gives none; allowed with {ABLE}"
    ]
    assert mistakes(source, "training.adjust=true") == [
        f"training.adjust: the {head} head gives no logits to adjust; allowed with {ABLE}"
    ]
    assert load(source, ["metric=worst_recall", "training.adjust=false"]).metric == "worst_recall"


@pytest.mark.parametrize("head", LOGIT_HEADS)
def test_heads_with_logits_may_be_adjusted_and_calibrated(head: str, tmp_path: Path) -> None:
    spec = load(written(tmp_path, head), ["metric=calibration", "training.adjust=true"])
    assert (spec.metric, spec.training.adjust) == ("calibration", True)


NEW = {
    "optimizer": "sgd",
    "schedule": "cosine",
    "drop_by": 10.0,
    "warmup": 0.05,
    "sampling": "balanced",
    "reweight_from": 0.8,
    "adjust": True,
}


def test_the_settings_of_training_survive_the_file_and_storage(tmp_path: Path) -> None:
    spec = load(written(tmp_path, "softmax"), [f"training.{key}={str(value).lower()}" for key, value in NEW.items()])
    assert {key: getattr(spec.training, key) for key in NEW} == NEW
    assert spec.to_dict()["training"].items() >= NEW.items()
    assert StudySpec.from_dict(spec.to_dict()) == spec
    again = tmp_path / "again.toml"
    again.write_text(spec.to_toml(), encoding="utf-8")
    assert load(str(again), [f"name={spec.name}"]) == spec
    assert load(str(again), ["training.reweight_from=none"]).training.reweight_from is None


@pytest.mark.parametrize("key", NEW)
def test_each_is_part_of_what_a_score_means(key: str) -> None:
    softmax = {"network.head": "softmax", "space": REMOVED}
    old, new = study(softmax), study(softmax | {f"training.{key}": NEW[key]})
    assert fingerprint(old, "float32") != fingerprint(new, "float32")
    (line,) = fingerprint_differences(old, new)
    assert line.startswith(f"training.{key}: stored ")
    assert fingerprint_differences(new, old) != []


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("optimizer", "lion", "adam or sgd"),
        ("schedule", "linear", "drops or cosine"),
        ("drop_by", 1, "a number above 1"),
        ("warmup", 0.6, "a share of the epochs from 0 to 0.5"),
        ("sampling", "all", "natural, square_root or balanced"),
        ("reweight_from", 1, "a share of the epochs from 0 and below 1"),
        ("adjust", "yes", "true or false"),
    ],
)
def test_wrong_settings_of_training_are_told(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        study({f"training.{key}": value})
    (line,) = caught.value.mistakes
    assert line.startswith(f"training.{key}: ")
    assert allowed in line


# As an earlier version stored it, and the fingerprint that it stored beside it.
STORED: dict[str, Any] = {
    **{"name": "digits", "protocol": "holdout", "trials": 24, "max_attempts": 3, "seed": 0},
    "data": {"set": "digits", "minority": 10, "validation": 0.2},
    "network": {"widths": [16, 32], "depth": 1, "batch_norm_momentum": 0.5, "head": "affinity"},
    "training": {
        **{"epochs": 15, "batch": 64, "learning_rate": 0.005, "drops": [0.5, 0.8]},
        **{"augment": False, "precision": "auto"},
    },
    "space": {
        "lambda": {"low": 0.01, "high": 1.0, "log": False},
        "sigma": {"low": 1.0, "high": 1000.0, "log": True},
        "n_centers": {"low": 1, "high": 10, "log": False},
    },
    "sampler": {"kind": "tpe", "n_startup_trials": 3},
    "pruner": {"kind": "halving", "min_resource": 3, "reduction_factor": 3},
}
FINGERPRINTS = {
    "affinity": "7c1f6a5c6d2f7fca5fc8fc8fe5f17aec5e3031ad22cd1526c03122885bc7dfca",
    "softmax": "aca537072ea6148f8fe3a0f5fcbcedd1e5c97f75849f172aacb99541efaea731",
}


@pytest.mark.parametrize("head", FINGERPRINTS)
def test_a_study_that_an_earlier_version_stored_is_what_it_was(head: str) -> None:
    plain = {**STORED, "network": {**STORED["network"], "head": head}}
    if head == "softmax":
        del plain["space"]
    spec = StudySpec.from_dict(plain)
    assert spec.to_dict() == plain
    assert list(spec.to_dict()["training"]) == list(plain["training"])
    assert fingerprint(spec, "float32") == FINGERPRINTS[head]


def test_usual_values_that_are_written_out_change_no_fingerprint() -> None:
    usual = {
        "optimizer": "adam",
        "schedule": "drops",
        "drop_by": 5,
        "warmup": 0,
        "sampling": "natural",
        "adjust": False,
    }
    spec = StudySpec.from_dict({**STORED, "metric": "macro_f1", "training": {**STORED["training"], **usual}})
    assert spec.to_dict() == STORED
    assert fingerprint(spec, "float32") == FINGERPRINTS["affinity"]


def test_an_optional_key_neither_comes_nor_goes() -> None:
    """Trials with it and without it are not told apart by Optuna's samplers."""
    plain, more = study(), study({"space.margin_power": 0.25, "space.weight_decay": {"low": 0, "high": 0.1}})
    assert widening_differences(plain.space, more.space) == [
        "space.margin_power: stored nothing, given 0.25; a stored study's space keeps its parameters",
        "space.weight_decay: stored nothing, given 0 to 0.1; a stored study's space keeps its parameters",
    ]
    assert widening_differences(more.space, plain.space) == [
        "space.margin_power: stored 0.25, given nothing; a stored study's space keeps its parameters",
        "space.weight_decay: stored 0 to 0.1, given nothing; a stored study's space keeps its parameters",
    ]
    wider = study({"space.margin_power": {"low": 0, "high": 0.5}, "space.weight_decay": {"low": 0, "high": 1}})
    assert widening_differences(more.space, wider.space) == []
    narrower = study({"space.margin_power": 0.25, "space.weight_decay": {"low": 0.01, "high": 0.1}})
    assert [line.partition(":")[0] for line in widening_differences(more.space, narrower.space)] == [
        "space.weight_decay"
    ]


def test_a_stored_study_is_a_template_for_another_head() -> None:
    stored = load("digits")
    other = overridden(stored, ["name=other", "network.head=ldam", "space=none"])
    assert other.searched == ["max_margin", "scale"], "its learning rate is given"
    softmax = overridden(stored, ["name=other", "network.head=softmax", "space=none"])
    assert softmax.space is None


POINTS = """
[[points]]
gamma = 2
learning_rate = 1e-3
[[points]]
class_weight_power = 1.5
"""


def with_points(tmp_path: Path, points: str) -> StudySpec:
    file = tmp_path / "mine.toml"
    file.write_text(STUDY.format(head="focal", training="", space="") + points, encoding="utf-8")
    return load(str(file))


def test_points_are_some_of_the_settings_each_within_the_space(tmp_path: Path) -> None:
    spec = with_points(tmp_path, POINTS)
    assert spec.points == ({"gamma": 2.0, "learning_rate": 1e-3}, {"class_weight_power": 1.5})
    assert StudySpec.from_dict(tomllib.loads(spec.to_toml())) == spec
    without = with_points(tmp_path, "")
    assert "points" not in without.to_dict(), "studies that were stored before have none"
    assert fingerprint(spec, "float32") == fingerprint(without, "float32"), "a score means the same"


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("gamma = 5.5", "points[0].gamma: 5.5 given; the space has 0 to 5"),
        ("gamma = 'two'", "points[0].gamma: 'two' given; allowed: a number from 0 to 20"),
        (
            "lambda = 0.5",
            "points[0].lambda: not searched; the space has gamma, class_weight_power and learning_rate",
        ),
    ],
)
def test_a_point_that_the_space_has_not_is_refused(tmp_path: Path, point: str, said: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        with_points(tmp_path, f"[[points]]\n{point}\n")
    assert caught.value.mistakes == [said]
