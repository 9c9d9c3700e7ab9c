"""What a Python program may call, as it would call it."""

import subprocess
import sys
from pathlib import Path

import pytest
from making import TINY, trained

import affinity_search
from affinity_search.search.worker.exits import Exit
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.errors import NothingToExportError, StudyNotFoundError
from affinity_search.studies.errors import StudyFileError

HEAVY = ("keras", "tensorflow", "jax", "optuna", "sqlalchemy", "numpy", "matplotlib")


def test_importing_it_imports_nothing_heavy() -> None:
    code = f"import sys, affinity_search, affinity_search.search.api; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_name_is_there() -> None:
    assert {name for name in affinity_search.__all__ if getattr(affinity_search, name) is None} == set()
    with pytest.raises(AttributeError, match="has no attribute 'launch'; it has AffinityHead"):
        _ = affinity_search.launch  # type: ignore[attr-defined]


class TestCreate:
    def test_overrides_are_keys_with_values(self, sqlite_url: str) -> None:
        told: list[str] = []
        overrides = {"training.epochs": 2, "space.sigma": {"low": 2.0, "high": 3.0}, "name": "mine"}
        with affinity_search.create(TINY, sqlite_url, trials=3, overrides=overrides, say=told.append) as study:
            assert study.stored.spec.training.epochs == 2
            assert study.stored.spec.trials == 3
            assert study.name == "mine"
            assert study.trials() == []
        assert told[0] == "created study 'mine' with 3 places"

    def test_every_mistake_is_told_at_once(self, sqlite_url: str, tmp_path: Path) -> None:
        with pytest.raises(StudyFileError, match=r"(?s)training\.epochs.*training\.batch"):
            affinity_search.create(TINY, sqlite_url, overrides={"training.epochs": 0, "training.batch": -1})
        assert list(tmp_path.glob("*.db")) == [], "a mistake leaves no database behind"

    def test_again_continues_it(self, sqlite_url: str) -> None:
        affinity_search.create(TINY, sqlite_url, trials=2, say=lambda line: None).close()
        with affinity_search.create("tiny", sqlite_url, trials=3, say=lambda line: None) as study:
            assert study.stored.spec.trials == 3


class TestOpen:
    def test_unknown(self, sqlite: Backend, sqlite_url: str) -> None:
        trained(sqlite)
        with pytest.raises(StudyNotFoundError, match="tiny"):
            affinity_search.open("digits", sqlite_url)

    def test_the_best_of_its_trials(self, sqlite: Backend, sqlite_url: str) -> None:
        trained(sqlite)
        with affinity_search.open("tiny", sqlite_url, read_only=True) as study:
            done = [trial for trial in study.trials() if trial.macro_f1 is not None]
            best = study.best(top=2)
            assert [trial.macro_f1 for trial in best] == sorted((t.macro_f1 or 0 for t in done), reverse=True)[:2]
            exported = study.export(top=1)
            assert (exported["trial"], exported["params"]) == (best[0].trial, best[0].params)
            assert len(exported["top"]) == 1

    def test_without_a_score(self, sqlite_url: str) -> None:
        with (
            affinity_search.create(TINY, sqlite_url, say=lambda line: None) as study,
            pytest.raises(NothingToExportError),
        ):
            study.best()


@pytest.mark.long
def test_a_search_and_its_evaluation(sqlite_url: str) -> None:
    """With real workers and real Keras."""
    quick = {"training.epochs": 2, "network.widths": [8, 16]}
    told: list[str] = []
    with affinity_search.create("digits", sqlite_url, trials=2, overrides=quick, say=told.append) as study:
        assert study.launch(workers=1, say=told.append) == Exit.DONE
        assert [trial.state for trial in study.trials()] == ["complete"] * 2
        evaluated = study.evaluate(draws=1, workers=1)
        assert [one.trial for one in evaluated] == [study.best()[0].trial]
        assert study.export()["test"]["macro_f1"] == evaluated[0].test["macro_f1"]
    assert any(line.startswith("1 worker on cpu; logs in ") for line in told)


@pytest.mark.usefixtures("fake_workers")
def test_a_comparison_from_python(sqlite_url: str) -> None:
    told: list[str] = []
    quick = {"training.epochs": 2, "network.widths": [4], "pruner.kind": "none"}
    comparison = affinity_search.compare(
        "digits", sqlite_url, heads=["softmax", "focal"], trials=2, draws=5, overrides=quick, say=told.append
    )
    assert told[0].startswith("created comparison 'digits-comparison': 2 contestants, 4 places to search")
    assert comparison.launch(workers=2, say=told.append) == Exit.DONE
    found = comparison.results()
    assert found.finished
    assert {one.contestant for one in found.levels[0].contestants} == {"softmax", "focal"}
