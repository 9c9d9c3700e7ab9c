"""Numbers no trial can survive are refused when somebody gives them; what was stored before goes on."""

import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from conftest import Cli
from making import TINY, make, open_study, redefined

from affinity_search.search.cli.app import app
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.stored.creation import create_or_continue
from affinity_search.storage.study import load_study, study_names
from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.files import load
from affinity_search.studies.model.spec import StudySpec


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trials=2000000", "trials: 2000000 given; allowed: a whole number from 1 to 100000"),
        ("trials=200000", "trials: 200000 given; allowed: a whole number from 1 to 100000"),
        ("max_attempts=1000", "max_attempts: 1000 given; allowed: a whole number from 1 to 100"),
        (
            "training.learning_rate=1e300",
            "training.learning_rate: 1e+300 given; allowed: a number above 0 and up to 10",
        ),
        (
            "training.learning_rate=inf",
            "training.learning_rate: inf given; allowed: a finite number above 0 and up to 10",
        ),
        (
            "training.learning_rate=nan",
            "training.learning_rate: nan given; allowed: a finite number above 0 and up to 10",
        ),
        ("training.epochs=20000", "training.epochs: 20000 given; allowed: a whole number from 1 to 10000"),
        ("training.batch=100000", "training.batch: 100000 given; allowed: a whole number from 1 to 65536"),
        ("network.widths=[8,5000]", "network.widths[1]: 5000 given; allowed: a whole number from 1 to 4096"),
        ("network.widths=[8,0]", "network.widths[1]: 0 given; allowed: a whole number from 1 to 4096"),
        ("network={widths=[4096,4096],depth=9}", "network.widths: widths [4096, 4096] with depth 9 make 2567 million"),
        ("training.drops=[0.5,nan]", "training.drops[1]: nan given; allowed: a finite number above 0 and below 1"),
        ("space.sigma.high=1e308", "space.sigma.high: 1e+308 given; allowed: a number above 0 and up to 1000000"),
        ("space.sigma=[1,1e9]", "space.sigma[1]: 1000000000.0 given; allowed: a number above 0 and up to 1000000"),
        ("space.lambda=inf", "space.lambda: inf given; allowed: a finite number above 0 and up to 1"),
        ("space.n_centers=1001", "space.n_centers: 1001 given; allowed: a whole number from 1 to 1000"),
        ("sampler.n_ei_candidates=10000000000", "sampler.n_ei_candidates: 10000000000 given; allowed: a number up to"),
        ("sampler.x=[1,[2]]", "sampler.x[1]: [2] given; allowed: true or false, a finite number, or printable text"),
    ],
)
def test_each_number_has_a_bound(override: str, line: str) -> None:
    with pytest.raises(StudyFileError) as refused:
        load(TINY, [override])
    assert any(mistake.startswith(line) for mistake in refused.value.mistakes), refused.value.mistakes
    assert len(refused.value.mistakes) == 1


def test_each_option_has_a_bound() -> None:
    """A command's numbers too, whichever option comes next."""
    found = 0
    for command in [*app.registered_commands, *(one for group in app.registered_groups for one in _commands(group))]:
        assert command.callback is not None
        module = vars(sys.modules[command.callback.__module__])
        for name, hint in command.callback.__annotations__.items():
            annotated = eval(hint, module | {"Path": Path}) if isinstance(hint, str) else hint
            kinds = {getattr(annotated, "__origin__", None), *get_args(getattr(annotated, "__origin__", None))}
            if kinds & {int, float}:
                (option,) = annotated.__metadata__
                assert option.min is not None, (command.name, name)
                assert option.max is not None, (command.name, name)
                found += 1
    assert found > 10


def _commands(group: Any) -> Any:
    return group.typer_instance.registered_commands


@pytest.mark.parametrize(
    "options",
    [
        ("--outage-s", "nan"),
        ("--outage-s", "inf"),
        ("--lease-s", "nan"),
        ("--workers", "99999"),
        ("--trials", "9999999"),
    ],
)
def test_an_option_beyond_reason(cli: Cli, tmp_path: Path, options: tuple[str, str]) -> None:
    ran = cli("launch", "digits", *options, "--storage", f"sqlite:///{tmp_path}/new.db", fails=True)
    assert ran.code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_is_stored_goes_on(cli: Cli, sqlite: Backend, sqlite_url: str) -> None:
    redefined(make(sqlite), learning_rate=1e300, epochs=20_000)
    study, _ = open_study(sqlite, "tiny", trials=6)
    assert (study.spec.training.learning_rate, study.spec.trials) == (1e300, 6)
    assert "tiny" in cli("status", "--storage", sqlite_url).out
    with pytest.raises(StudyFileError, match="max_attempts: 101 given"):
        open_study(sqlite, "tiny", overrides=["max_attempts=101"])


class TestEveryCaller:
    """Whoever stores a study, the command line or a program, stores none that cannot be trained."""

    @pytest.mark.parametrize(
        ("part", "line"),
        [
            (
                {"sampler": {"kind": "tpe", "n_startup": 3}},
                "sampler.n_startup: unknown key; did you mean n_startup_trials?",
            ),
            ({"sampler": {"kind": "random", "x": 3}}, "sampler.x: unknown key; this kind takes no options"),
            ({"sampler": {"kind": "tpe", "n_ei_candidates": 0}}, "sampler: Optuna refuses the options in use: "),
            ({"pruner": {"kind": "hyperband", "min_resource": 0}}, "pruner: Optuna refuses the opt"),
            ({"pruner": {"kind": "halving", "reduction_factor": 1}}, "pruner: "),
            ({"pruner": {"kind": "median", "n_warmup_steps": "two"}}, "pruner: "),
        ],
    )
    def test_options_that_optuna_refuses_now_or_later(self, sqlite: Backend, part: dict[str, Any], line: str) -> None:
        spec = StudySpec.from_dict(load(TINY).to_dict() | part)
        with sqlite.exclusive(), pytest.raises(StudyFileError) as refused:
            create_or_continue(sqlite, spec, resize=False)
        assert refused.value.mistakes[0].startswith(line), refused.value.mistakes
        assert study_names(sqlite) == []

    def test_numbers(self, sqlite: Backend) -> None:
        whole = load(TINY).to_dict()
        spec = StudySpec.from_dict(whole | {"training": whole["training"] | {"learning_rate": 1e300}})
        with sqlite.exclusive(), pytest.raises(StudyFileError, match="learning_rate"):
            create_or_continue(sqlite, spec, resize=False)


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (
            ["pruner.kind=halving", "pruner.min_resource=300", "training.epochs=15"],
            "pruner.min_resource is 300, but the last of 15 epochs is step 14; no trial is pruned",
        ),
        (
            ["pruner.kind=median", "pruner.n_warmup_steps=2"],
            "pruner.n_warmup_steps is 2, but the last of 2 epochs is step 1",
        ),
        (
            ["pruner.kind=median", "pruner.n_startup_trials=4"],
            "pruner.n_startup_trials is 4 of 4 trials: no trial is ever",
        ),
        (["sampler.n_startup_trials=9"], "sampler.n_startup_trials is 9 of 4 trials: all of them are drawn at random"),
    ],
)
def test_options_that_can_never_act_are_told(sqlite: Backend, overrides: list[str], note: str) -> None:
    _, notes = open_study(sqlite, TINY, overrides=overrides)
    assert any(line.startswith(note) for line in notes), notes
    assert open_study(sqlite, "tiny")[1] == [], "once"
    assert load_study(sqlite, "tiny")


@pytest.mark.parametrize("study", ["digits", "mnist", "cifar10", "cifar10-article", "mnist-article"])
def test_the_bundled_studies_have_nothing_to_be_told_of(sqlite: Backend, study: str) -> None:
    assert len(open_study(sqlite, study)[1]) == 1


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("trials = 1\ntrials = 2\n", "trials"),
        ("[training]\nepochs = 1\nbatch = 3\nepochs = 2\n", "training.epochs"),
        ("[data]\nset = 'digits'\nset = 'mnist'", "data.set"),
    ],
)
def test_a_key_that_is_given_twice_is_named(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "twice.toml").write_text(text)
    with pytest.raises(StudyFileError, match=rf"not valid TOML: .*: {key} is given twice"):
        load(str(tmp_path / "twice.toml"))


def test_a_table_that_is_given_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "twice.toml").write_text("[data]\nset = 'digits'\n[data]\nminority = 3\n")
    with pytest.raises(StudyFileError, match=r"Cannot declare \('data',\) twice"):
        load(str(tmp_path / "twice.toml"))
