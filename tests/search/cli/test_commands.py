"""The commands that look after stored studies: stop, rename, delete, trials."""

import csv
import errno
import io
import json
import signal
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import Cli, Start
from making import attempt_at, holder, make, open_study, train, trained, worker_for
from optuna.trial import TrialState
from pyarrow import parquet
from sqlalchemy import func, insert, select
from waiting import until

from affinity_search.search.worker.attempt import Attempt
from affinity_search.search.worker.exits import Exit
from affinity_search.search.worker.setup import WorkerOptions, work
from affinity_search.search.worker.stopping import StopListener, StopSignals
from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState, Stop
from affinity_search.storage.errors import HeldPlacesError
from affinity_search.storage.files import StudyFiles, default_root
from affinity_search.storage.places.claims import Claim, Places
from affinity_search.storage.places.recovery import RecoveryThread
from affinity_search.storage.stored.agenda import OneStudy
from affinity_search.storage.stored.deletion import delete_study
from affinity_search.storage.stored.planning import plan_final_runs
from affinity_search.storage.stored.renaming import rename
from affinity_search.storage.stored.stopping import resume, stop
from affinity_search.storage.study import StoredStudy, history, load_study, study_names
from affinity_search.storage.trials.artifacts import RECORD_PREFIX, artifacts_folder
from affinity_search.storage.trials.record import describe_trial


def claimed(study: StoredStudy, worker: str = "busy") -> tuple[Claim, Attempt]:
    holding = holder(worker)
    claim = Places.of(study).claim(holding)
    assert claim is not None
    return claim, attempt_at(study, claim, holding)


def rows_of(backend: Backend, token: str) -> list[int]:
    """How many rows each of our tables has for that token."""
    ours = (tables.studies, tables.places, tables.events, tables.evaluations)
    with backend.engine.connect() as connection:
        return [
            connection.execute(select(func.count()).select_from(table).where(table.c.token == token)).scalar_one()
            for table in ours
        ]


class TestStop:
    def test_nobody_claims_until_it_is_resumed(self, backend: Backend) -> None:
        study = make(backend)
        others = make(backend, "others")
        assert stop(study, Stop.DRAIN, "me@here").stopped == Stop.DRAIN
        assert Places.of(study).claim(holder()) is None
        assert Places.of(others).claim(holder()) is not None
        assert load_study(backend, "tiny").stopped == Stop.DRAIN
        assert resume(study, "me@here").stopped is None
        assert Places.of(study).claim(holder()) is not None

    def test_the_history_has_each_change_once(self, backend: Backend) -> None:
        study = make(backend)
        for how in (Stop.DRAIN, Stop.DRAIN, Stop.NOW):
            stop(study, how, "me@here")
        for _ in range(2):
            resume(study, "me@here")
        assert [(one["kind"], one["text"]) for one in history(study)][2:] == [
            ("stopped", "no new trials, by me@here"),
            ("stopped", "no new trials, running ones given back, by me@here"),
            ("resumed", "by me@here"),
        ]

    @pytest.mark.usefixtures("fake_training")
    def test_a_worker_says_why_it_does_nothing(self, backend: Backend, capsys: pytest.CaptureFixture[str]) -> None:
        study = stop(make(backend), Stop.DRAIN, "me@here")
        signals = StopSignals()
        assert work(OneStudy(study), WorkerOptions("cpu", signals=signals)) == 0
        assert signals.draining
        assert "study 'tiny' was stopped by `affinity-search stop`: no new trials" in capsys.readouterr().err
        assert Places.of(study).counts().free == 4

    @pytest.mark.parametrize("how", list(Stop))
    def test_a_thread_hears_of_it_during_a_trial(self, backend: Backend, how: Stop) -> None:
        study, said, heard = make(backend), list[str](), threading.Event()

        def say(line: str) -> None:
            said.append(line)
            heard.set()

        with StopSignals(lambda _: None) as signals, RecoveryThread(study, say, 0.05, StopListener(signals, say)):
            assert not heard.wait(0.3)
            stop(study, how, "me@here")
            assert heard.wait(20)
            until(lambda: signals.draining, "the worker to drain")
            until(lambda: signals.stopping == (how == Stop.NOW), "it to stop now, or not to")
        assert len(said) == 1

    def test_the_commands(self, backend: Backend, database_url: str, cli: Cli) -> None:
        study = make(backend)
        claimed(study)
        ran = cli("stop", "tiny", "--storage", database_url)
        assert ran.out == ""
        assert "study 'tiny' is stopped: no new trials; 1 running trial will finish" in ran.err
        assert "stopped: no new trials" in cli("status", "tiny", "--storage", database_url).out
        found = json.loads(cli("status", "tiny", "--json", "--storage", database_url).out)
        assert found["stopped"] == "drain"
        assert "given back" in cli("stop", "tiny", "--now", "--storage", database_url).err
        assert cli("stop", "tiny", "--now", "--undo", "--storage", database_url, fails=True).code == Exit.MISUSE
        cli("stop", "tiny", "--undo", "--storage", database_url)
        assert load_study(backend, "tiny").stopped is None
        assert "tinny" in cli("stop", "tinny", "--storage", database_url, fails=True).refused()

    def test_what_a_scheduler_starts_again_leaves_it_alone(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        study = stop(make(sqlite), Stop.DRAIN, "me@here")
        at = ("--storage", sqlite_url)
        for command in (
            ("launch", "tiny", "--unless-stopped", "--devices", "cpu"),
            ("worker", "tiny", "--device", "cpu"),
        ):
            ran = cli(*command, *at, fails=True)
            assert ran.code == Exit.STOPPED
            assert "to go on: affinity-search launch tiny" in ran.err
        assert load_study(sqlite, "tiny").stopped == Stop.DRAIN
        assert Places.of(study).counts().free == 4

    def test_two_workers_in_training_stop_now_and_a_launch_goes_on(
        self, backend: Backend, database_url: str, start: Start, tmp_path: Path
    ) -> None:
        study, gate = make(backend), tmp_path / "gate"
        options = {"AFFINITY_SEARCH_STORAGE": database_url, "FAKE_GATE": str(gate)}
        launch = start("launch", "tiny", "--workers", "2", "--lease-s", "3", **options)

        def in_training() -> bool:
            return sum(bool(trial.intermediate_values) for trial in study.optuna.get_trials(deepcopy=False)) == 2

        until(in_training, "two trials to wait at the gate")
        rename(backend, "tiny", "renamed")  # those at work know it by its id
        assert start("stop", "renamed", "--now", AFFINITY_SEARCH_STORAGE=database_url).ended() == 0
        assert launch.ended() == Exit.STOPPED, launch.said
        assert "study 'renamed' was stopped by `affinity-search stop`" in launch.said
        assert "stopped with 4 places free; to go on: affinity-search launch renamed" in launch.said
        assert [(row.state, row.attempt) for row in Places.of(study).rows()] == [(PlaceState.FREE, 0)] * 4
        assert [trial.state for trial in study.optuna.trials] == [TrialState.FAIL] * 2
        gate.touch()
        again = start("launch", "renamed", "--workers", "2", **options)
        assert again.ended() == 0, again.said
        assert "study 'renamed' was stopped; it goes on" in again.said
        assert Places.of(study).counts().complete == 4

    def test_a_signal_of_one_s_own_reaches_what_waits_for_signals(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        with StopSignals() as signals:
            signals.stop_from_elsewhere(now=False)
            assert (signals.draining, signals.stopping) == (True, False)
            signals.stop_from_elsewhere(now=True)
            until(lambda: signals.stopping, "the signal")
        assert signal.getsignal(signal.SIGTERM) == before


class TestRename:
    def test_everything_is_found_under_the_new_name(self, backend: Backend, database_url: str, cli: Cli) -> None:
        trained(backend, "old name")
        ran = cli("rename", "old name", "new name", "--storage", database_url)
        assert "is called 'new name' now" in ran.err
        assert study_names(backend) == ["new name"]
        assert json.loads(cli("export", "new name", "--storage", database_url).out)["study"] == "new name"
        assert load_study(backend, "new name").spec.name == "new name"
        assert "renamed: from old name" in cli("status", "new name", "--storage", database_url).out
        assert "old name" in cli("status", "old name", "--storage", database_url, fails=True).refused()
        assert train(open_study(backend, "new name", trials=5)[0]) == 1

    def test_a_worker_in_a_trial_goes_on(self, backend: Backend, database_url: str, cli: Cli) -> None:
        study = make(backend)
        worker = worker_for(study)
        claim = worker.places.claim(worker.holder)
        assert claim is not None
        _, elsewhere = claimed(study)
        cli("rename", "tiny", "renamed", "--storage", database_url)
        assert worker.run(claim, lambda: False)
        describe_trial(study, elsewhere.number, reason="its worker died")
        elsewhere.drop()
        assert study.under_its_name().name == "renamed"
        trials = load_study(backend, "renamed").optuna.trials
        assert sorted(trial.state.name for trial in trials) == ["COMPLETE", "FAIL"]

    def test_the_dashboard_s_way(self, sqlite: Backend) -> None:
        make(sqlite)
        with sqlite.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE studies SET study_name = 'changed there'")
        study = load_study(sqlite, "changed there")
        assert study.spec.name == study.refreshed().name == "changed there"

    @pytest.mark.parametrize(
        "new", ["-lead", "..", "a/b", "new\nline", "x.toml", "X.TOML", " ", "", "other", "theirs", "tiny"]
    )
    def test_names_that_are_refused(self, new: str, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        make(sqlite)
        make(sqlite, "other")
        optuna.create_study(study_name="theirs", storage=sqlite.optuna)
        line = cli("rename", "--storage", sqlite_url, "--", "tiny", new, fails=True).refused()
        assert repr(new)[1:-1] in line
        assert study_names(sqlite) == ["other", "tiny"]


class TestDelete:
    def test_nothing_of_it_stays(self, backend: Backend, database_url: str, cli: Cli, tmp_path: Path) -> None:
        study, kept = trained(backend), trained(backend, "kept")
        evaluated = {"token": study.token, "trial": 0, "opened_at": 1.0, "opened_by": "me@there", "seeds": "[1]"}
        with backend.engine.begin() as connection:
            connection.execute(insert(tables.evaluations).values(**evaluated))
        train(plan_final_runs(study, {0: study.optuna.best_trial.params}, 2))
        files = StudyFiles(tmp_path / "root", study.token)
        files.checkpoints.mkdir(parents=True)
        files.checkpoint(0).touch()
        others = StudyFiles(tmp_path / "root", kept.token)
        others.checkpoints.mkdir(parents=True)
        picture = artifacts_folder(files.root) / "a-picture"
        picture.parent.mkdir()
        picture.touch()
        _, attempt = claimed(open_study(backend, "tiny", trials=5)[0])
        backend.optuna.set_trial_system_attr(attempt.record.id, RECORD_PREFIX + picture.name, "{}")
        attempt.give_back("to delete it")
        assert all(rows_of(backend, study.token))
        ran = cli("delete", "tiny", "--yes", "--files", str(files.root), "--storage", database_url)
        assert "study 'tiny' is deleted" in ran.err
        assert rows_of(backend, study.token) == [0, 0, 0, 0]
        assert study_names(backend) == ["kept"]
        assert Places.of(kept).counts().complete == 4
        assert [path.name for path in files.root.iterdir() if path.name != "artifacts"] == [kept.token]
        assert not picture.exists()

    def test_a_living_lease_is_in_the_way(self, backend: Backend, database_url: str, cli: Cli) -> None:
        study = make(backend)
        claimed(study, "busy")
        line = cli("delete", "tiny", "--yes", "--storage", database_url, fails=True).refused()
        assert "place 0 by busy (process 1 on this-host)" in line
        assert "`affinity-search stop tiny --now`" in line
        assert rows_of(backend, study.token)[1] == 4
        with backend.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE affinity_places SET lease_until = 1")
        cli("delete", "tiny", "--yes", "--storage", database_url)
        assert study_names(backend) == []

    def test_no_claim_slips_in_between(self, backend: Backend, tmp_path: Path) -> None:
        """Whoever is first: either the study stays with its worker, or nobody gets a place any more."""
        for number in range(5):
            study, got = make(backend, f"study-{number}", trials=3), list[Any]()
            claiming = threading.Thread(target=lambda: got.append(Places.of(study).claim(holder())))  # noqa: B023
            claiming.start()
            refused = False
            try:
                delete_study(backend, study.name, tmp_path)
            except HeldPlacesError:
                refused = True
            claiming.join(60)
            assert refused == (got != [None])
            assert (study.name in study_names(backend)) == refused

    def test_who_cannot_be_asked_must_say_yes(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        make(sqlite)
        assert "add --yes" in cli("delete", "tiny", "--storage", sqlite_url, fails=True).refused()
        assert study_names(sqlite) == ["tiny"]

    def test_studies_that_are_not_ours(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        optuna.create_study(study_name="theirs", storage=sqlite.optuna).add_trial(optuna.create_trial(value=1.0))
        assert "did not make" in cli("delete", "theirs", "--yes", "--storage", sqlite_url, fails=True).refused()
        assert "no study 'none'" in cli("delete", "none", "--yes", "--storage", sqlite_url, fails=True).refused()

    def test_one_whose_definition_is_gone(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        make(sqlite)
        with sqlite.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM affinity_studies")
        cli("delete", "tiny", "--yes", "--storage", sqlite_url)
        assert study_names(sqlite) == []

    def test_it_is_the_default_root_that_is_cleared(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        study = make(sqlite)
        files = StudyFiles(default_root(sqlite.url), study.token)
        files.checkpoints.mkdir(parents=True)
        cli("delete", "tiny", "--yes", "--storage", sqlite_url)
        assert not files.folder.exists()


def _full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class TestTrials:
    @pytest.fixture
    def at(self, backend: Backend, database_url: str) -> tuple[str, str]:
        """Two complete trials, one that was given back, and one that runs."""
        study = make(backend)
        train(study, most=2)
        _, attempt = claimed(study)
        attempt.give_back("the worker was asked to stop")
        claimed(study)
        return "--storage", database_url

    def test_csv(self, at: tuple[str, str], cli: Cli, tmp_path: Path) -> None:
        text = cli("trials", "tiny", "--csv", "-", *at).out
        rows = list(csv.DictReader(io.StringIO(text)))
        first = ["trial", "place", "attempt", "state", "macro_f1", "lambda", "sigma", "n_centers"]
        last = ["best_epoch", "epochs", "seconds", "seed", "worker", "device", "reason"]
        assert list(rows[0]) == first + last
        assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]
        assert [row["state"] for row in rows] == ["complete", "complete", "given back", "running"]
        assert [row["place"] for row in rows] == ["0", "1", "2", "2"]
        assert (rows[0]["epochs"], rows[0]["best_epoch"]) == ("2", "2"), "later epochs of the fake are better"
        assert rows[2]["reason"] == "the worker was asked to stop"
        assert (rows[2]["macro_f1"], rows[3]["macro_f1"]) == ("", "")
        cli("trials", "tiny", "--csv", str(tmp_path / "trials.csv"), *at)
        assert (tmp_path / "trials.csv").read_text() == text

    def test_parquet_is_typed(self, at: tuple[str, str], cli: Cli, backend: Backend, tmp_path: Path) -> None:
        path = tmp_path / "trials.parquet"
        assert cli("trials", "tiny", "--parquet", str(path), *at).err == f"wrote 4 trials to {path}\n"
        table = parquet.read_table(path)
        kinds = {field.name: str(field.type) for field in table.schema}
        assert (kinds["trial"], kinds["n_centers"], kinds["lambda"]) == ("int64", "int64", "double")
        assert (kinds["began"], kinds["curve"]) == ("timestamp[us, tz=UTC]", "list<element: double>")
        rows, trials = table.to_pylist(), load_study(backend, "tiny").optuna.trials
        assert [row["state"] for row in rows] == ["complete", "complete", "given back", "running"]
        for row, trial in zip(rows, trials, strict=True):
            assert {key: row[key] for key in trial.params} == trial.params
            assert row["curve"] == [1 - value for _, value in sorted(trial.intermediate_values.items())]
            assert trial.datetime_start is not None
            assert row["began"].timestamp() == pytest.approx(trial.datetime_start.timestamp(), abs=1e-5)
        assert rows[0]["macro_f1"] == pytest.approx(1 - trials[0].value)
        assert (rows[3]["ended"], rows[3]["macro_f1"], rows[2]["reason"]) == (
            None,
            None,
            "the worker was asked to stop",
        )

    def test_parquet_is_written_whole_or_not_at_all(self, at: tuple[str, str], cli: Cli, tmp_path: Path) -> None:
        path = tmp_path / "trials.parquet"
        path.write_text("the old one")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pyarrow.parquet.write_table", _full_disk)
            refused = cli("trials", "tiny", "--parquet", str(path), *at, fails=True).refused()
        assert "cannot be written: No space left on device" in refused
        assert [one.name for one in tmp_path.glob("*.parquet*")] == ["trials.parquet"]
        assert path.read_text() == "the old one"

    def test_parquet_without_its_package_or_with_another_format(
        self, at: tuple[str, str], cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        both = cli("trials", "tiny", "--parquet", "x", "--csv", "y", *at, fails=True)
        assert (both.code, "contradict each other" in both.err) == (2, True)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        refused = cli("trials", "tiny", "--parquet", "x.parquet", *at, fails=True).refused(78)
        assert "pip install 'affinity-search[parquet]'" in refused

    def test_json_has_the_values_of_the_places(self, at: tuple[str, str], cli: Cli, backend: Backend) -> None:
        study = load_study(backend, "tiny")
        rows = json.loads(cli("trials", "tiny", "--json", *at).out)
        for row, place in zip(rows[:2], Places.of(study).rows()[:2], strict=True):
            assert row["macro_f1"] == pytest.approx(1 - place.value)
            assert row["params"] == pytest.approx(place.params)
            assert row["worker"] == place.worker
            assert row["seconds"] >= 0

    @pytest.mark.parametrize("columns", [40, 80, 200])
    def test_the_table_fits(self, at: tuple[str, str], cli: Cli, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        ran = cli("trials", "tiny", *at)
        assert ran.err == ""
        head, *lines = ran.out.splitlines()
        assert all(len(line.rstrip()) <= columns for line in (head, *lines[:4]))
        assert head.split()[:4] == ["trial", "state", "macro", "F1"]
        assert [line.split()[0] for line in lines[:4]] == ["0", "1", "2", "3"]
        assert ("seed" in head) == (columns == 200)
        assert ("too narrow for:" in ran.out) == (columns < 200)

    def test_an_empty_study(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        make(sqlite)
        assert cli("trials", "tiny", "--csv", "-", "--storage", sqlite_url).out.count("\n") == 1
        assert json.loads(cli("trials", "tiny", "--json", "--storage", sqlite_url).out) == []
        assert cli("trials", "tiny", "--storage", sqlite_url).out.split()[0] == "trial"


def test_trials_that_another_program_queued_are_told_and_do_not_count(
    sqlite: Backend, sqlite_url: str, cli: Cli
) -> None:
    study = make(sqlite, trials=1)
    study.optuna.enqueue_trial({"lambda": 0.5, "sigma": 10.0, "n_centers": 1})
    train(study)
    found = json.loads(cli("status", "tiny", "--json", "--storage", sqlite_url).out)
    assert (found["attempts"], found["foreign"]) == (1, 1)
    assert "1 trial was added to this study by another program" in cli("status", "tiny", "--storage", sqlite_url).out
    assert [row["trial"] for row in json.loads(cli("trials", "tiny", "--json", "--storage", sqlite_url).out)] == [1]
