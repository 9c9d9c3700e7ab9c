"""What a study file's mistakes are, and what a person is told of them."""

import pickle
from typing import Any

import pytest
from test_spec import REMOVED, changed, raw_study

from affinity_search.studies.errors import AffinitySearchError, StudyFileError
from affinity_search.studies.model.spec import StudySpec


def mistakes_of(changes: dict[str, Any]) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        StudySpec.from_dict(changed(changes))
    return caught.value.mistakes


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"trials": REMOVED}, "trials: missing; allowed: a whole number from 1 to 100000"),
    ({"trials": 0}, "trials: 0 given; allowed: a whole number from 1 to 100000"),
    ({"trials": True}, "trials: true given; allowed: a whole number from 1 to 100000"),
    ({"trials": 2.0}, "trials: 2.0 given; allowed: a whole number from 1 to 100000"),
    ({"trials": "5"}, "trials: '5' given; allowed: a whole number from 1 to 100000"),
    ({"seed": -1}, "seed: -1 given; allowed: a whole number from 0 to 4294967295"),
    ({"seed": 1 << 20000}, "seed: <an integer of 20001 bits> given; allowed: a whole number from 0 to 4294967295"),
    ({"name": ""}, "name: '' given; allowed: 1 to 200 printable characters"),
    ({"name": "a\x1b[31m"}, "name: 'a\\x1b[31m' given; allowed: 1 to 200 printable characters"),
    ({"name": 5}, "name: 5 given; allowed: 1 to 200 printable characters"),
    ({"protocol": "test"}, "protocol: 'test' given; allowed: holdout or article"),
    ({"data": 5}, "data: 5 given; allowed: a table [data]"),
    ({"tracking": {}}, "tracking.to: missing; allowed: mlflow, or mlflow=ADDRESS with a server's URL, a folder or"),
    ({"tracking.to": "wandb"}, "tracking.to: 'wandb' given; allowed: mlflow, or mlflow=ADDRESS with"),
    ({"tracking.to": "mlflow=mlruns"}, "tracking.to: the path of a folder or file begins with / or ~ here"),
    ({"tracking.to": "mlflow=http://me:geheim@host"}, "tracking.to: a study file is stored, so it holds no password"),
    (
        {"data.set": "MNIST"},
        "data.set: 'MNIST' given; allowed: digits, mnist, cifar10, cifar100, folder, npz or features",
    ),
    (
        {"data.set": ["mnist"]},
        "data.set: ['mnist'] given; allowed: digits, mnist, cifar10, cifar100, folder, npz or features",
    ),
    ({"data.minority": 901}, "data.minority: 901 given; allowed: a whole number from 1 to 900 for mnist"),
    (
        {"data.minority": 0},
        "data.minority: 0 given; allowed: a whole number from 1, up to 30 (digits), 900 (mnist), 1000 (cifar10) or "
        "100 (cifar100)",
    ),
    ({"data.validation": 0.6}, "data.validation: 0.6 given; allowed: a number above 0 and up to 0.5"),
    ({"data.validation": 0}, "data.validation: 0 given; allowed: a number above 0 and up to 0.5"),
    (
        {"data.validation": 0.2, "protocol": "article"},
        "data.validation: 0.2 given; allowed: nothing, as the article protocol scores the test images",
    ),
    ({"network.widths": []}, "network.widths: [] given; allowed: a list of 1 to 6 whole numbers from 1 to 4096"),
    (
        {"network.widths": [4, -1]},
        "network.widths[1]: -1 given; allowed: a whole number from 1 to 4096",
    ),
    (
        {"network.widths": [1] * 6},
        "network.widths: [1, 1, 1, 1, 1, 1] given; "
        "allowed: at most 5 widths for mnist, whose 28 pixels are halved between them",
    ),
    ({"network.depth": 0}, "network.depth: 0 given; allowed: a whole number from 1 to 32"),
    (
        {"network.batch_norm_momentum": 1},
        "network.batch_norm_momentum: 1 given; allowed: a number from 0 and below 1",
    ),
    (
        {"network.head": "softmax", "space": {"sigma": 10}},
        "space.sigma: a setting of affinity and joint, which the softmax head has not; it takes learning_rate and "
        "weight_decay (--set space=none takes the recommended space)",
    ),
    (
        {"space.softmax_share": 1},
        "space.softmax_share: a setting of joint, which the affinity head has not; it takes lambda, sigma, n_centers, "
        "margin_power, learning_rate and weight_decay (--set",
    ),
    ({"space": REMOVED}, "space: missing; the affinity head needs a table [space] with lambda, sigma and n_centers"),
    ({"training.epochs": "many"}, "training.epochs: 'many' given; allowed: a whole number from 1 to 10000"),
    (
        {"training.learning_rate": float("nan")},
        "training.learning_rate: nan given; allowed: a finite number above 0 and up to 10",
    ),
    (
        {"training.learning_rate": float("inf")},
        "training.learning_rate: inf given; allowed: a finite number above 0 and up to 10",
    ),
    ({"training.learning_rate": 1 << 20000}, "training.learning_rate: <an integer of 20001 bits> given"),
    ({"training.drops": [0.8, 0.5]}, "training.drops: [0.8, 0.5] given; allowed: a list of growing numbers"),
    ({"training.drops": [0.5, 0.5]}, "training.drops: [0.5, 0.5] given; allowed: a list of growing numbers"),
    ({"training.drops": [0.5, 1]}, "training.drops[1]: 1 given; allowed: a number above 0 and below 1"),
    ({"training.augment": 1}, "training.augment: 1 given; allowed: true or false"),
    (
        {"training.precision": "fp16"},
        "training.precision: 'fp16' given; allowed: float32, mixed_bfloat16, mixed_float16 or auto",
    ),
    ({"training.batc": 1}, "training.batc: unknown key; did you mean training.batch?"),
    ({"epochs": 3}, "epochs: unknown key; did you mean training.epochs?"),
    ({"trial": 3}, "trial: unknown key; did you mean trials?"),
    ({"data.q": 3}, "data.q: unknown key; allowed here: set, path, size, group, profile, minority, small, imbala"),
    ({"a\nb": 3}, "'a\\nb': unknown key; allowed here: name, protocol,"),
    ({"space.lambda_": 1}, "space.lambda_: unknown key; did you mean space.lambda?"),
    (
        {"space.sigma": REMOVED},
        "space.sigma: missing; allowed: a number above 0 and up to 1000000, a list of such, or { low, high }",
    ),
    ({"space.sigma.low": -5}, "space.sigma.low: -5 given; allowed: a number above 0"),
    ({"space.sigma.high": REMOVED}, "space.sigma.high: missing; allowed: a number above 0"),
    ({"space.sigma.high": 5}, "space.sigma.high: 5 given; allowed: a number above low, which is 10"),
    ({"space.sigma.high": 10}, "low and high are both 10; for a constant write the bare value"),
    ({"space.sigma.high": float("inf")}, "space.sigma.high: inf given; allowed: a finite number above 0"),
    ({"space.sigma.hihg": 5}, "space.sigma.hihg: unknown key; did you mean space.sigma.high?"),
    ({"space.sigma.log": "yes"}, "space.sigma.log: 'yes' given; allowed: true or false"),
    ({"space.sigma": "wide"}, "space.sigma: 'wide' given; allowed: a number above 0 and up to 1000000, a list of such"),
    ({"space.sigma": 1 << 20000}, "space.sigma: <an integer of 20001 bits> given"),
    ({"space.sigma": float("nan")}, "space.sigma: nan given"),
    ({"space.sigma": []}, "space.sigma: [] given; allowed: a list of 1 to 1000 values, each a number above 0"),
    ({"space.sigma": [1, 1.0]}, "space.sigma: [1, 1.0] given; allowed: a list of values that all differ"),
    ({"space.sigma": [1, True]}, "space.sigma[1]: true given; allowed: a number above 0"),
    ({"space.lambda": 1.01}, "space.lambda: 1.01 given; allowed: a number above 0 and up to 1"),
    ({"space.lambda.low": 0}, "space.lambda.low: 0 given; allowed: a number above 0 and up to 1"),
    ({"space.n_centers": 5.0}, "space.n_centers: 5.0 given; allowed: a whole number from 1 to 1000"),
    ({"space.n_centers.high": 1001}, "space.n_centers.high: 1001 given; allowed: a whole number from 1 to 1000"),
    ({"space.n_centers": [1, 5.0]}, "space.n_centers[1]: 5.0 given; allowed: a whole number from 1 to 1000"),
    ({"sampler.kind": "grid"}, "sampler.kind: 'grid' given; allowed: tpe or random"),
    ({"sampler.seed": 1}, "sampler.seed: not allowed: samplers are seeded from the study's seed and the place"),
    ({"sampler.deep": {"a": 1}}, "sampler.deep: {'a': 1} given; allowed: true or false, a finite number"),
    ({"sampler.weight": float("inf")}, "sampler.weight: inf given; allowed: true or false, a finite number"),
    ({"sampler.text": "a\0"}, "sampler.text: 'a\\x00' given; allowed: true or false, a finite number, printable text"),
    ({"sampler.a b": 1}, "sampler.'a b': not allowed: options are keyword arguments"),
    (
        {"pruner.kind": "none", "pruner.n_warmup_steps": 1},
        "pruner.n_warmup_steps: not allowed: kind none has no options",
    ),
]


@pytest.mark.parametrize(("changes", "line"), MISTAKES)
def test_each_mistake_is_one_line(changes: dict[str, Any], line: str) -> None:
    found = mistakes_of(changes)
    assert len(found) == 1
    assert line in found[0]
    assert "\n" not in found[0]
    assert "http" not in found[0]


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(StudyFileError) as caught:
        StudySpec.from_dict(
            changed({"training.epoch": 3, "training.epochs": REMOVED, "space.sigma.low": -5}), source="cifar.toml"
        )
    assert str(caught.value) == (
        "cifar.toml has 3 mistakes:\n"
        "  training.epochs: missing; allowed: a whole number from 1 to 10000\n"
        "  training.epoch: unknown key; did you mean training.epochs?\n"
        "  space.sigma.low: -5 given; allowed: a number above 0 and up to 1000000"
    )


def test_rules_between_sections_are_told_beside_mistakes_in_values() -> None:
    found = mistakes_of({"trials": 0, "data.minority": 1000, "network.head": "softmax", "sampler.seed": 3})
    keys = [line.partition(":")[0] for line in found]
    assert keys == ["trials", "space.lambda", "space.sigma", "space.n_centers", "data.minority", "sampler.seed"]


def test_an_empty_study_hears_of_every_required_key() -> None:
    with pytest.raises(StudyFileError) as caught:
        StudySpec.from_dict({})
    keys = [line.partition(":")[0] for line in caught.value.mistakes]
    assert keys == [
        *("name", "trials", "data.set", "network.widths"),
        *("training.epochs", "training.batch", "space", "training.learning_rate"),
    ]


def test_a_hundred_mistakes_are_shown_and_the_rest_counted() -> None:
    with pytest.raises(StudyFileError) as caught:
        StudySpec.from_dict({**raw_study(), **{f"key{at}": at for at in range(5000)}})
    assert len(caught.value.mistakes) == 100
    assert str(caught.value).startswith("the study has 5000 mistakes:")
    assert str(caught.value).endswith("and 4900 more")


def test_values_are_shortened() -> None:
    assert len(mistakes_of({"training.epochs": "x" * 100_000})[0]) < 150
    assert len(mistakes_of({"training.epochs": [list(range(1000))] * 1000})[0]) < 150
    assert len(mistakes_of({"y" * 100_000: 1})[0]) < 250


def test_deeply_nested_values_are_mistakes() -> None:
    deep: dict[str, Any] = {}
    for _ in range(10_000):
        deep = {"a": deep}
    changes = {"training.epochs": deep, "space.sigma": deep, "sampler.a": deep, "odd": deep}
    assert len(mistakes_of(changes)) == 6  # sigma's: an unknown key, low and high


@pytest.mark.parametrize("raw", [[], None, "text", 5])
def test_only_a_table_is_a_study(raw: Any) -> None:
    with pytest.raises(StudyFileError, match="a table of keys and values"):
        StudySpec.from_dict(raw)


def test_errors_survive_pickling() -> None:
    error = StudyFileError("a.toml", ["one", "two"], 3)
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, AffinitySearchError)
    assert (str(again), again.mistakes, again.left_out) == (str(error), ["one", "two"], 3)
