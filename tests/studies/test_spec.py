"""The study file's model: what it holds."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from affinity_search.studies.model.spec import Choice, Constant, DataSpec, IntegerRange, RealRange, StudySpec

REMOVED = object()


def raw_study() -> dict[str, Any]:
    return {
        "name": "tried",
        "trials": 5,
        "data": {"set": "mnist", "minority": 10},
        "network": {"widths": [32, 64]},
        "training": {"epochs": 3, "batch": 64, "learning_rate": 1e-3},
        "space": {
            "lambda": {"low": 0.01, "high": 1},
            "sigma": {"low": 10, "high": 1000, "log": True},
            "n_centers": {"low": 1, "high": 30},
        },
    }


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The study with keys such as `training.epochs` set, or removed."""
    raw = raw_study()
    for path, value in changes.items():
        *tables, key = path.split(".")
        table = raw
        for each in tables:
            table = table.setdefault(each, {})
        table[key] = value
        if value is REMOVED:
            del table[key]
    return raw


def test_defaults_are_resolved() -> None:
    spec = StudySpec.from_dict(raw_study())
    assert (spec.protocol, spec.seed, spec.data.validation) == ("holdout", 0, 0.2)
    assert (spec.network.depth, spec.network.batch_norm_momentum, spec.network.head) == (1, 0.9, "affinity")
    assert (spec.training.drops, spec.training.augment, spec.training.precision) == ((0.5, 0.8), False, "auto")
    assert (spec.sampler.kind, spec.sampler.options, spec.pruner.kind, spec.pruner.options) == ("tpe", {}, "median", {})


def test_space_is_typed_by_parameter() -> None:
    spec = StudySpec.from_dict(changed({"space.lambda": 1, "space.sigma": [1, 2.5], "space.n_centers": [1, 5]}))
    assert spec.space is not None
    assert dict(spec.space.items()) == {
        "lambda": Constant(value=1.0),
        "sigma": Choice(values=(1.0, 2.5)),
        "n_centers": Choice(values=(1, 5)),
    }
    values = [spec.space["lambda"].to_plain(), *spec.space["sigma"].to_plain(), *spec.space["n_centers"].to_plain()]
    assert [type(value) for value in values] == [float, float, float, int, int]
    assert spec.space.max_centers == 5


def test_ranges() -> None:
    space = StudySpec.from_dict(raw_study()).space
    assert space is not None
    assert space["lambda"] == RealRange(low=0.01, high=1.0)
    assert space["sigma"] == RealRange(low=10.0, high=1000.0, log=True)
    assert space["n_centers"] == IntegerRange(low=1, high=30)
    assert space.max_centers == 30
    assert [parameter.describe() for _, parameter in space.items()] == ["0.01 to 1", "10 to 1000 (log)", "1 to 30"]


def test_descriptions_of_choices_and_constants_keep_all_digits() -> None:
    assert Choice(values=(1, 5)).describe() == "one of 1, 5"
    assert Constant(value=0.43527814607240023).describe() == "0.43527814607240023"


def test_article_protocol_has_no_validation_images() -> None:
    assert StudySpec.from_dict(changed({"protocol": "article"})).data.validation is None


def test_softmax_has_no_space() -> None:
    spec = StudySpec.from_dict(changed({"network.head": "softmax", "space": REMOVED}))
    assert spec.space is None
    assert "space" not in spec.to_dict()


def test_options_keep_their_types() -> None:
    options = {"multivariate": False, "n_startup_trials": 5, "prior_weight": 1.0, "names": ["a", 1, 2.0, True]}
    spec = StudySpec.from_dict(changed({"sampler": {"kind": "tpe", **options}}))
    assert json.dumps(spec.sampler.options) == json.dumps(options)
    assert json.dumps(spec.to_dict()["sampler"]) == json.dumps({"kind": "tpe", **options})


def test_models_are_frozen() -> None:
    spec = StudySpec.from_dict(raw_study())
    with pytest.raises(ValidationError):
        spec.trials = 6  # type: ignore[misc]
    with pytest.raises(ValidationError):
        spec.data.minority = 6  # type: ignore[misc]


def test_rules_hold_without_a_file() -> None:
    spec = StudySpec.from_dict(raw_study())
    parts = {name: getattr(spec, name) for name in StudySpec.model_fields}
    assert StudySpec(**parts) == spec
    with pytest.raises(ValidationError, match="from 1 to 900 for mnist"):
        StudySpec(**{**parts, "data": DataSpec(set="mnist", minority=901)})


@pytest.mark.parametrize(
    "changes",
    [
        {"data.set": "digits", "data.minority": 30, "network.widths": [1] * 4},
        {"data.set": "mnist", "data.minority": 900, "network.widths": [1] * 5},
        {"data.set": "cifar10", "data.minority": 1000, "network.widths": [1] * 6},
        {"data.minority": 1, "data.validation": 0.5, "network.batch_norm_momentum": 0, "training.drops": []},
        {"space.lambda": 1, "space.sigma": 1e-300, "space.n_centers": [1, 1000]},
        {"name": "ü" * 200, "seed": 2**32 - 1, "trials": 1},
    ],
)
def test_the_limits_themselves_are_allowed(changes: dict[str, Any]) -> None:
    StudySpec.from_dict(changed(changes))
