"""The bundled studies."""

import pytest

from affinity_search.studies import bundled
from affinity_search.studies.files import load
from affinity_search.studies.model.parameters import Choice, Constant, IntegerRange, RealRange


def test_names() -> None:
    assert bundled.names() == ["cifar10", "cifar10-article", "digits", "mnist", "mnist-article"]


@pytest.mark.parametrize("name", bundled.names())
def test_each_loads_under_its_own_name(name: str) -> None:
    spec = load(name)
    assert spec.name == name
    assert spec.space is not None


@pytest.mark.parametrize("name", bundled.names())
def test_each_has_a_summary(name: str) -> None:
    assert bundled.text(name).startswith(f"# {bundled.summary(name)}\n")
    assert 20 < len(bundled.summary(name)) < 120


def test_a_bundled_name_that_is_none() -> None:
    with pytest.raises(KeyError):
        bundled.text("../secret")
    with pytest.raises(KeyError):
        bundled.summary("cifr10")


def test_a_bundled_name_takes_overrides() -> None:
    spec = load("cifar10", ["name=mine", "network.head=softmax", "space=none"])
    assert (spec.name, spec.space) == ("mine", None)


def test_the_article_s_search_is_the_article_s() -> None:
    spec = load("cifar10-article")
    assert spec.space is not None
    assert dict(spec.space.items()) == {
        "lambda": RealRange(low=0.01, high=1.0),
        "sigma": RealRange(low=10.0, high=100.0, log=True),
        "n_centers": IntegerRange(low=1, high=30),
    }
    assert (spec.protocol, spec.trials, spec.data.set, spec.data.minority) == ("article", 200, "cifar10", 200)
    assert (spec.network.widths, spec.network.depth, spec.network.batch_norm_momentum) == ((64, 128, 256), 3, 0.99)
    training = spec.training
    assert (training.epochs, training.batch, training.learning_rate, training.drops) == (100, 640, 5e-3, (0.5, 0.8))
    assert (training.augment, training.precision) == (False, "float32")
    assert spec.sampler.options == {"multivariate": False, "constant_liar": False}
    assert (spec.pruner.kind, spec.pruner.options) == ("median", {"n_warmup_steps": 0})


def test_the_article_s_mnist_runs_are_the_article_s() -> None:
    spec = load("mnist-article")
    assert spec.space is not None
    assert dict(spec.space.items()) == {
        "lambda": Constant(value=0.75),
        "sigma": Constant(value=10.0),
        "n_centers": Choice(values=(1, 5)),
    }
    assert (spec.protocol, spec.data.set, spec.data.minority, spec.sampler.kind) == ("article", "mnist", 10, "random")
    assert (spec.network.widths, spec.network.depth, spec.training.batch) == ((32, 64, 128), 1, 128)


@pytest.mark.parametrize("name", bundled.names())
def test_optuna_knows_the_options(name: str) -> None:
    optuna = pytest.importorskip("optuna")
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    pruners = {
        "halving": optuna.pruners.SuccessiveHalvingPruner,
        "median": optuna.pruners.MedianPruner,
        "none": optuna.pruners.NopPruner,
    }
    spec = load(name)
    samplers[spec.sampler.kind](**spec.sampler.options)
    pruners[spec.pruner.kind](**spec.pruner.options)
