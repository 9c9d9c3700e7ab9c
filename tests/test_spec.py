"""The study file's model: what it holds, what it refuses, what it says."""

import copy
import json
import pickle
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from studies.errors import AffinitySearchError, StudyFileError
from studies.spec import Choice, Constant, DataSpec, IntegerRange, RealRange, StudySpec

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
        table[key] = copy.deepcopy(value)
        if value is REMOVED:
            del table[key]
    return raw


def mistakes_of(changes: dict[str, Any]) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        StudySpec.from_dict(changed(changes))
    return caught.value.mistakes


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
    values = [spec.space.lambda_.to_plain(), *spec.space.sigma.to_plain(), *spec.space.n_centers.to_plain()]
    assert [type(value) for value in values] == [float, float, float, int, int]
    assert spec.space.max_centers == 5


def test_ranges() -> None:
    space = StudySpec.from_dict(raw_study()).space
    assert space is not None
    assert space.lambda_ == RealRange(low=0.01, high=1.0)
    assert space.sigma == RealRange(low=10.0, high=1000.0, log=True)
    assert space.n_centers == IntegerRange(low=1, high=30)
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


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"trials": REMOVED}, "trials: missing; allowed: a whole number from 1"),
    ({"trials": 0}, "trials: 0 given; allowed: a whole number from 1"),
    ({"trials": True}, "trials: true given; allowed: a whole number from 1"),
    ({"trials": 2.0}, "trials: 2.0 given; allowed: a whole number from 1"),
    ({"trials": "5"}, "trials: '5' given; allowed: a whole number from 1"),
    ({"seed": -1}, "seed: -1 given; allowed: a whole number from 0 to 4294967295"),
    ({"seed": 1 << 20000}, "seed: <an integer of 20001 bits> given; allowed: a whole number from 0 to 4294967295"),
    ({"name": ""}, "name: '' given; allowed: 1 to 200 printable characters"),
    ({"name": "a\x1b[31m"}, "name: 'a\\x1b[31m' given; allowed: 1 to 200 printable characters"),
    ({"name": 5}, "name: 5 given; allowed: 1 to 200 printable characters"),
    ({"protocol": "test"}, "protocol: 'test' given; allowed: holdout or article"),
    ({"data": 5}, "data: 5 given; allowed: a table [data]"),
    ({"data.set": "MNIST"}, "data.set: 'MNIST' given; allowed: digits, mnist or cifar10"),
    ({"data.set": ["mnist"]}, "data.set: ['mnist'] given; allowed: digits, mnist or cifar10"),
    ({"data.minority": 901}, "data.minority: 901 given; allowed: a whole number from 1 to 900 for mnist"),
    (
        {"data.minority": 0},
        "data.minority: 0 given; allowed: a whole number from 1, up to 30 (digits), 900 (mnist) or 1000 (cifar10)",
    ),
    ({"data.validation": 0.6}, "data.validation: 0.6 given; allowed: a number above 0 and up to 0.5"),
    ({"data.validation": 0}, "data.validation: 0 given; allowed: a number above 0 and up to 0.5"),
    (
        {"data.validation": 0.2, "protocol": "article"},
        "data.validation: 0.2 given; allowed: nothing, as the article protocol scores the test images",
    ),
    ({"network.widths": []}, "network.widths: [] given; allowed: a list of 1 to 6 whole numbers from 1 to 8192"),
    (
        {"network.widths": [4, -1]},
        "network.widths[1]: -1 given; allowed: a list of 1 to 6 whole numbers from 1 to 8192",
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
    ({"network.head": "softmax"}, "remove it (or pass --set space=none)"),
    ({"space": REMOVED}, "space: missing; the affinity head needs a table [space] with lambda, sigma and n_centers"),
    ({"training.epochs": "many"}, "training.epochs: 'many' given; allowed: a whole number from 1"),
    ({"training.learning_rate": float("nan")}, "training.learning_rate: nan given; allowed: a number above 0"),
    ({"training.learning_rate": float("inf")}, "training.learning_rate: inf given; allowed: a number above 0"),
    ({"training.learning_rate": 1 << 20000}, "training.learning_rate: <an integer of 20001 bits> given"),
    ({"training.drops": [0.8, 0.5]}, "training.drops: [0.8, 0.5] given; allowed: a list of growing numbers"),
    ({"training.drops": [0.5, 0.5]}, "training.drops: [0.5, 0.5] given; allowed: a list of growing numbers"),
    ({"training.drops": [0.5, 1]}, "training.drops[1]: 1 given; allowed: a list of growing numbers"),
    ({"training.augment": 1}, "training.augment: 1 given; allowed: true or false"),
    ({"training.precision": "fp16"}, "training.precision: 'fp16' given; allowed: float32, mixed_bfloat16 or auto"),
    ({"training.batc": 1}, "training.batc: unknown key; did you mean training.batch?"),
    ({"epochs": 3}, "epochs: unknown key; did you mean training.epochs?"),
    ({"trial": 3}, "trial: unknown key; did you mean trials?"),
    ({"data.q": 3}, "data.q: unknown key; allowed here: set, minority, validation"),
    ({"a\nb": 3}, "'a\\nb': unknown key; allowed here: name, protocol,"),
    ({"space.lambda_": 1}, "space.lambda_: unknown key; did you mean space.lambda?"),
    ({"space.sigma": REMOVED}, "space.sigma: missing; allowed: a number above 0, a list of such, or { low, high }"),
    ({"space.sigma.low": -5}, "space.sigma.low: -5 given; allowed: a number above 0"),
    ({"space.sigma.high": REMOVED}, "space.sigma.high: missing; allowed: a number above 0"),
    ({"space.sigma.high": 5}, "space.sigma.high: 5 given; allowed: a number above low, which is 10.0"),
    ({"space.sigma.high": 10}, "low and high are both 10.0; for a constant write the bare value 10.0"),
    ({"space.sigma.high": float("inf")}, "space.sigma.high: inf given; allowed: a number above 0"),
    ({"space.sigma.hihg": 5}, "space.sigma.hihg: unknown key; did you mean space.sigma.high?"),
    ({"space.sigma.log": "yes"}, "space.sigma.log: 'yes' given; allowed: true or false"),
    ({"space.sigma": "wide"}, "space.sigma: 'wide' given; allowed: a number above 0, a list of such"),
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
        "  training.epochs: missing; allowed: a whole number from 1\n"
        "  training.epoch: unknown key; did you mean training.epochs?\n"
        "  space.sigma.low: -5 given; allowed: a number above 0"
    )


def test_rules_between_sections_are_told_beside_mistakes_in_values() -> None:
    found = mistakes_of({"trials": 0, "data.minority": 1000, "network.head": "softmax", "sampler.seed": 3})
    assert [line.partition(":")[0] for line in found] == ["trials", "data.minority", "space", "sampler.seed"]


def test_an_empty_study_hears_of_every_required_key() -> None:
    with pytest.raises(StudyFileError) as caught:
        StudySpec.from_dict({})
    keys = [line.partition(":")[0] for line in caught.value.mistakes]
    assert keys == [
        *("name", "trials", "data.set", "data.minority", "network.widths"),
        *("training.epochs", "training.batch", "training.learning_rate", "space"),
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


def _reals(most: float) -> st.SearchStrategy[Any]:
    real = st.floats(min_value=0, max_value=most, exclude_min=True) | st.just(1)
    return _parameter(real)


def _parameter(number: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pair = st.lists(number, min_size=2, max_size=2, unique_by=float).map(sorted)
    ranges = st.builds(lambda ends, log: {"low": ends[0], "high": ends[1], "log": log}, pair, st.booleans())
    return number | ranges | st.lists(number, min_size=1, max_size=5, unique_by=float)


OPTION = st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
STUDIES = st.fixed_dictionaries(
    {
        "name": st.text(min_size=1, max_size=200).filter(str.isprintable),
        "trials": st.integers(1, 1000),
        "data": st.fixed_dictionaries(
            {"set": st.sampled_from(["mnist", "cifar10"]), "minority": st.integers(1, 900)},
            optional={"validation": st.floats(0, 0.5, exclude_min=True)},
        ),
        "network": st.fixed_dictionaries({"widths": st.lists(st.integers(1, 512), min_size=1, max_size=5)}),
        "training": st.fixed_dictionaries(
            {
                "epochs": st.integers(1, 100),
                "batch": st.integers(1, 1000),
                "learning_rate": st.floats(0, 1e9, exclude_min=True),
            },
            optional={
                "drops": st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), unique=True).map(sorted),
                "precision": st.sampled_from(["auto", "float32"]),
            },
        ),
        "space": st.fixed_dictionaries(
            {"lambda": _reals(1), "sigma": _reals(1.7e308), "n_centers": _parameter(st.integers(1, 1000))}
        ),
        "sampler": st.dictionaries(
            st.text(max_size=8).filter(str.isidentifier).filter(lambda key: key not in ("kind", "seed")),
            OPTION | st.lists(OPTION, max_size=3) | st.text().filter(str.isprintable),
            max_size=3,
        ),
    },
    optional={"seed": st.integers(0, 2**32 - 1)},
)


@settings(max_examples=150, deadline=None)
@given(STUDIES)
def test_round_trips(raw: dict[str, Any]) -> None:
    spec = StudySpec.from_dict(raw)
    through_json = json.loads(json.dumps(spec.to_dict(), allow_nan=False))
    assert through_json == spec.to_dict()
    assert StudySpec.from_dict(through_json) == spec
    assert StudySpec.from_dict(tomllib.loads(spec.to_toml())) == spec


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PATHS = ["name", "trials", "data", "data.set", "network.widths", "training.drops", "training.epochs", "odd"]
PATHS += ["space", "space.sigma", "space.sigma.low", "space.sigma.log", "space.n_centers", "sampler", "sampler.x"]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(PATHS), JUNK, max_size=4))
def test_no_junk_is_a_traceback(junk: dict[str, Any]) -> None:
    # Whole tables last: a key below one of junk cannot be set.
    ordered = dict(sorted(junk.items(), key=lambda item: -item[0].count(".")))
    try:
        StudySpec.from_dict(changed(ordered))
    except StudyFileError as error:
        assert error.mistakes
        assert all(line.isprintable() for line in error.mistakes)
