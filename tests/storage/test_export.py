"""The best parameters as JSON: complete, exact, described by a schema, and honest about the protocol."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import Cli
from fake_objective import fake_scores
from making import ARTICLE, attempt_at, holder, make, trained, worker_for

from affinity_search.search.training.results import EpochScore
from affinity_search.search.view.snapshot import take
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.errors import NothingToExportError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.results.export import export, make_schema, schema_text, to_plain
from affinity_search.storage.stored.renaming import rename
from affinity_search.storage.study import StoredStudy, load_study
from affinity_search.storage.trials.seeds import trial_seed

SCHEMA = json.loads(schema_text())


def exported(study: StoredStudy, top: int | None = None) -> dict[str, Any]:
    """Checked against the schema."""
    found = json.loads(json.dumps(to_plain(export(study, top))))
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    return dict(found)


def test_the_shipped_schema_is_that_of_the_models() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert schema_text() == make_schema()


def test_the_schema_refuses_what_is_no_export(sqlite: Backend) -> None:
    good = exported(trained(sqlite))
    for wrong in ({"surprise": 1}, {"params": {"lambda": 1}}, {"protocol": "best"}, {"value": "0.5"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(good | wrong, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({key: good[key] for key in good if key != "fingerprint"}, SCHEMA)


def test_the_best_trial_with_all_that_belongs_to_it(backend: Backend) -> None:
    study = trained(backend)
    best = exported(study)
    trial = study.optuna.best_trial
    assert best["params"] == trial.params
    assert (best["value"], best["trial"]) == (trial.value, trial.number)
    assert best["macro_f1"] == pytest.approx(1 - best["value"])
    assert best["seed"] == trial_seed(0, best["place"])
    assert (best["study"], best["dataset"], best["minority"]) == ("tiny", "digits", 30)
    assert (best["protocol"], best["attempt"], best["epoch"]) == ("holdout", 1, 2)
    assert (best["schema_version"], best["state"], best["epochs"]) == (2, "complete", 2)
    assert best["counts"] == {"total": 4, "used": 4, "running": 0, "complete": 4, "pruned": 0, "failed": 0, "closed": 0}
    assert best["fingerprint"] == study.fingerprint
    assert best["test"] is None
    assert "top" not in best


def test_every_float_reads_back_exactly(backend: Backend) -> None:
    study = make(backend, trials=1, overrides=[f"space.lambda={math.nextafter(0.1, 1)!r}", "space.sigma=1e-300"])
    worker = worker_for(study)
    claim = worker.places.claim(worker.holder)
    assert claim is not None
    attempt = attempt_at(study, claim, worker.holder)
    odd = replace(fake_scores(1 / 3), accuracy=0.1 + 0.2, per_class_f1=(math.pi / 7,))
    attempt.report(EpochScore(0, 0.5, odd, 1e-9))
    attempt.complete()
    found = exported(study)
    assert found["value"] == 1.0 - 1 / 3
    assert found["params"] == {
        "lambda": math.nextafter(0.1, 1),
        "sigma": 1e-300,
        "n_centers": found["params"]["n_centers"],
    }
    assert (found["macro_f1"], found["micro_f1"], found["per_class_f1"]) == (1 / 3, 0.1 + 0.2, [math.pi / 7])


def test_the_k_best_in_order(sqlite: Backend) -> None:
    study = trained(sqlite)
    found = exported(study, top=3)
    values = [one["value"] for one in found["top"]]
    assert values == sorted(trial.value for trial in study.optuna.trials)[:3]
    assert {key: found[key] for key in found if key != "top"} == found["top"][0]
    assert len(exported(study, top=99)["top"]) == 4


def test_softmax_has_no_params(sqlite: Backend) -> None:
    assert exported(trained(sqlite, overrides=["network.head=softmax", "space=none"]))["params"] is None


def test_the_article_s_protocol_is_named(sqlite: Backend) -> None:
    assert exported(trained(sqlite, overrides=ARTICLE))["protocol"] == "article"


def test_nothing_finished(backend: Backend, database_url: str, cli: Cli) -> None:
    make(backend)
    line = cli("export", "tiny", "--storage", database_url, fails=True).refused()
    assert line == "study 'tiny' has no finished trial yet; see: affinity-search status tiny"


@pytest.mark.parametrize("command", ["export", "evaluate", "embed"])
def test_a_study_of_which_every_trial_failed_says_why(sqlite: Backend, sqlite_url: str, cli: Cli, command: str) -> None:
    places = Places.of(make(sqlite, "my study", trials=2))
    for end in ("has no finished trial yet", "has no score, and no place is left"):
        claim = places.claim(holder())
        assert claim is not None
        places.fail_attempt(claim, "diverged", "the loss became NaN in epoch 1\nmore", last=True)
        line = cli(command, "my study", "--storage", sqlite_url, fails=True).refused()
        assert end in line
        assert "places failed: " in line
        assert "× the loss became NaN in epoch 1; " in line
    assert line.endswith("add places with: affinity-search launch 'my study' --trials 4")


def test_a_place_whose_trial_still_waits_for_its_pictures(sqlite: Backend) -> None:
    study = trained(sqlite)
    best, expected = study.optuna.best_trial.number, exported(study)
    with sqlite.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE trials SET state = 'RUNNING' WHERE number = {best}")
    assert exported(study) == expected
    best_now = take(study).best
    assert best_now is not None
    assert best_now.trial == best


def test_a_place_whose_trial_has_no_scores(sqlite: Backend) -> None:
    study = trained(sqlite)
    best = study.optuna.best_trial.number
    with sqlite.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM trial_user_attributes WHERE key = 'scores'")
    with pytest.raises(NothingToExportError, match=rf"trials \[{best}\] have no scores"):
        exported(load_study(sqlite, study.name))


class TestTheCommand:
    @pytest.fixture
    def storage(self, sqlite: Backend, sqlite_url: str) -> tuple[str, str]:
        trained(sqlite)
        return "--storage", sqlite_url

    def test_it_is_ascii_whatever_the_study_s_name(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        """A stream that lacks our letters would replace them."""
        rename(sqlite, trained(sqlite).name, "研究")
        text = cli("export", "研究", "--storage", sqlite_url).out
        assert text.isascii()
        assert json.loads(text)["study"] == "研究"

    def test_data_goes_to_stdout_alone(self, storage: tuple[str, str], cli: Cli) -> None:
        ran = cli("export", "tiny", "--top", "2", *storage)
        assert len(json.loads(ran.out)["top"]) == 2
        assert ran.err == ""

    def test_the_schema(self, storage: tuple[str, str], cli: Cli) -> None:
        assert cli("export", "tiny", "--schema", *storage).out == schema_text()

    def test_a_file_replaces_the_old_one_whole(self, storage: tuple[str, str], cli: Cli, tmp_path: Path) -> None:
        path = tmp_path / "best.json"
        path.write_text("old")
        old = path.open()  # a reader that is in the middle
        ran = cli("export", "tiny", "-o", str(path), *storage)
        assert ran.out == ""
        assert ran.err == f"wrote {path}\n"
        assert json.loads(path.read_text())["study"] == "tiny"
        assert old.read() == "old"
        old.close()
        assert path.stat().st_mode & 0o777 == 0o644

    def test_a_link_stays_a_link(self, storage: tuple[str, str], cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
        cli("export", "tiny", "-o", str(tmp_path / "link.json"), *storage)
        assert (tmp_path / "link.json").is_symlink()
        assert json.loads((tmp_path / "real.json").read_text())["study"] == "tiny"

    @pytest.mark.parametrize("where", ["no/such/folder/best.json", "."])
    def test_a_file_that_cannot_be_written(
        self, storage: tuple[str, str], cli: Cli, tmp_path: Path, where: str
    ) -> None:
        (tmp_path / "out").mkdir()
        line = cli("export", "tiny", "-o", str(tmp_path / "out" / where), *storage, fails=True).refused()
        assert "cannot be written" in line
        assert line.endswith("name another file with -o")
        assert list((tmp_path / "out").iterdir()) == []
        assert not [path for path in tmp_path.iterdir() if path.name.startswith("tmp")]

    def test_a_write_that_fails_leaves_the_old_file(
        self, storage: tuple[str, str], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "out").mkdir()
        path = tmp_path / "out" / "best.json"
        path.write_text("old")

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        line = cli("export", "tiny", "-o", str(path), *storage, fails=True).refused()
        assert "No space left on device" in line
        assert [(p.name, p.read_text()) for p in path.parent.iterdir()] == [("best.json", "old")]

    def test_a_pipe_or_device_is_written_and_not_replaced(
        self, storage: tuple[str, str], cli: Cli, tmp_path: Path
    ) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        cli("export", "tiny", "-o", str(pipe), *storage)
        assert json.loads(os.read(reader, 1 << 16))["study"] == "tiny"
        os.close(reader)
        assert pipe.is_fifo()
