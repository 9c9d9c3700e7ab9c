"""What a launch would take, before it is launched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Start
from making import make
from sqlalchemy import select

from affinity_search.search.devices import nvidia
from affinity_search.search.devices.slots import Slot
from affinity_search.search.experiments.cost import plan as planning
from affinity_search.search.experiments.cost.measuring import Speed
from affinity_search.search.experiments.cost.plan import Plan, plan_study
from affinity_search.search.experiments.cost.work import (
    LAUNCH_S,
    SERVICE_S,
    Work,
    final_work_of,
    pruned_lengths,
    seconds,
    work_of,
)
from affinity_search.search.worker.setup import WorkerOptions, work
from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.stored.agenda import OneStudy
from affinity_search.storage.study import load_study
from affinity_search.studies.files import load
from affinity_search.studies.model.spec import PrunerSpec

ONE = 10 * 1.0 + 0.5 + SERVICE_S  # seconds of a training of ten epochs
CPU = (Slot("cpu", "cpu", 1, {}),)


class TestWork:
    def test_epochs_are_those_of_all_trainings(self) -> None:
        spec = load("digits", ["training.epochs=10", "pruner.kind=none", "data.validation={folds=5}"])
        work = work_of(spec, 12)
        assert (work.epochs, work.most_epochs, work.expected_epochs) == (50, 600, 600)
        assert final_work_of(spec, 3).most_epochs == 30, "a final run trains once"

    def test_halving_lets_about_a_third_go_on(self) -> None:
        lengths = pruned_lengths(PrunerSpec(kind="halving", min_resource=3, reduction_factor=3), 15)
        assert set(lengths) == {4, 10, 15}
        assert lengths.count(4) / len(lengths) == pytest.approx(2 / 3, abs=0.15)

    def test_a_pruner_that_never_acts_saves_nothing(self) -> None:
        assert set(pruned_lengths(PrunerSpec(kind="median", n_startup_trials=1000), 8)) == {8}

    def test_long_trials_are_simulated_in_a_moment(self) -> None:
        lengths = pruned_lengths(PrunerSpec(kind="hyperband"), 10_000)
        assert max(lengths) == 10_000 > min(lengths)

    def test_what_was_seen_counts_more_than_a_simulation(self) -> None:
        spec = load("digits")
        assert work_of(spec, 4, seen=[4, 15]).each() == [4, 15, 4, 15]


class TestTime:
    SPEED = Speed(process_s=3.0, setup_s=2.0, epoch_s=1.0, trial_s=0.5, memory_mib=100.0)

    def test_the_last_training_is_waited_for(self) -> None:
        whole = seconds([(Work("a", 5, 10), self.SPEED)], 2, pruned=False)
        assert whole == pytest.approx(LAUNCH_S + 3 + 2 + 3 * ONE), "five trainings on two workers take three rounds"

    def test_pruned_trials_make_room(self) -> None:
        work = Work("a", 4, 10, lengths=(10, 2, 2, 2))
        assert seconds([(work, self.SPEED)], 2, pruned=True) == pytest.approx(LAUNCH_S + 3 + 2 + ONE)
        assert seconds([(work, self.SPEED)], 2, pruned=False) == pytest.approx(LAUNCH_S + 3 + 2 + 2 * ONE)

    def test_studies_follow_each_other_in_one_process(self) -> None:
        works = [(Work("a", 1, 10), self.SPEED), (Work("b", 1, 10), self.SPEED)]
        assert seconds(works, 1, pruned=False) == pytest.approx(LAUNCH_S + 3 + 2 * (2 + ONE))

    def test_the_price_is_of_the_expected_time(self) -> None:
        plan = Plan("a", 1, "cpu", ((Work("a", 10, 360), self.SPEED),), "", price_per_hour=2.0)
        assert plan.price == pytest.approx(2.0 * (LAUNCH_S + 3 + 2 + 10 * (360.5 + SERVICE_S)) / 3600)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake at the hardware's edge: nothing is trained, and every study is equally fast."""

    def speeds(specs: list[Any], slots: list[Slot], data_dir: Path | None) -> list[Speed]:
        return [Speed(1.0, 1.0, 2.0, 0.0, 500.0) for _ in specs]

    monkeypatch.setattr(planning, "speeds", speeds)


@pytest.mark.usefixtures("measured")
class TestPlan:
    def test_a_stored_study_is_planned_for_what_is_left(self, sqlite: Backend) -> None:
        study = make(sqlite, trials=6)
        with sqlite.engine.begin() as connection:
            places = tables.places
            first = select(places.c.number).where(places.c.token == study.token).order_by(places.c.number).limit(2)
            connection.execute(places.update().where(places.c.number.in_(first)).values(state="complete", value=0.5))
        plan = plan_study(study.spec, study, CPU, None, print, measure=False)
        assert plan.trainings == 4

    def test_room_on_gpus_is_of_each_card(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cards = [nvidia.Gpu(0, "GPU-a", "A", 16000, 12000), nvidia.Gpu(1, "GPU-b", "B", 16000, 1000)]
        monkeypatch.setattr(nvidia, "gpus", lambda: cards)
        slots = [Slot(gpu.label, "gpu:0", None, {}, gpu.uuid) for gpu in cards]
        plan = plan_study(load("digits"), None, slots, None, print, measure=False)
        assert (plan.free_mib, plan.room) == (13000, 9), "nine on the first card, none on the second"

    def test_a_comparison_counts_searches_and_final_runs(self, cli: Cli, sqlite_url: str) -> None:
        asked = ("digits", "--heads", "softmax,affinity", "--trials", "4", "--draws", "2", "--storage", sqlite_url)
        told = json.loads(cli("compare", *asked, "--dry-run", "--json", "--set", "pruner.kind=none").out)
        assert told["trainings"] == 2 * (4 + 2)
        assert told["most_epochs"] == told["expected_epochs"] == 2 * (4 + 2) * 15

    def test_a_bundled_comparison_is_planned_too(self, cli: Cli, sqlite_url: str) -> None:
        told = cli("plan", "digits-demo", "--storage", sqlite_url).out
        assert "digits-demo.affinity, final runs" in told
        assert "45 trainings" in told


def test_a_name_of_a_study_and_a_comparison_is_the_study_that_launch_starts(
    cli: Cli, sqlite_url: str, tmp_path: Path
) -> None:
    where = ("--json", "--storage", sqlite_url, "--data-dir", str(tmp_path))
    told = cli("plan", "mnist-article", "--trials", "3", *where, fails=True)
    (work,) = json.loads(told.out)["works"]
    assert (work["study"], work["trainings"]) == ("mnist-article", 3)
    told = cli("compare", "mnist-article", "--dry-run", *where, fails=True)
    assert len(json.loads(told.out)["works"]) > 1


@pytest.mark.usefixtures("fake_training")
def test_a_study_s_own_trials_tell_its_speed(sqlite: Backend, cli: Cli, sqlite_url: str) -> None:
    study = make(sqlite, trials=6)
    assert work(OneStudy(study), WorkerOptions("cpu", 1)) == 6
    plan = plan_study(load_study(sqlite, study.name).spec, study, CPU, None, print, measure=False)
    assert plan.trainings == 0
    assert "nothing is left to train" in cli("plan", study.name, "--storage", sqlite_url).out
    told = cli("plan", study.name, "--trials", "10", "--storage", sqlite_url, "--price-per-hour", "3").out
    assert "4 trainings" in told
    assert "from its 6 finished trials, on cpu, " in told
    assert "cost" in told


def test_missing_images_are_told_and_nothing_is_stored(
    cli: Cli, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "empty").mkdir()
    ran = cli("plan", "mnist", "--data-dir", str(tmp_path / "empty"), "--storage", sqlite_url, fails=True)
    assert ran.code == 78
    assert "mnist.npz" in ran.out
    assert "work       60 trainings, 1200 epochs at most" in ran.out
    assert "Traceback" not in ran.out + ran.err
    assert not list(tmp_path.glob("studies.db*"))


def test_mistakes_are_a_line_each(cli: Cli, sqlite_url: str) -> None:
    ran = cli("plan", "digit", "--storage", sqlite_url, fails=True)
    assert "did you mean digits" in ran.err or "'digit'" in ran.err
    ran = cli("plan", "digits", "--set", "training.epochs=0", "--storage", sqlite_url, fails=True)
    assert "training.epochs: 0 given" in ran.err
    assert cli("plan", "digits", "--devices", "gpu:99", "--storage", sqlite_url, fails=True).code == 69


def test_real_steps_are_measured_by_as_many_processes_as_workers(start: Start, sqlite_url: str, tmp_path: Path) -> None:
    quick = ("--set", "training.epochs=3", "--set", "network.widths=[4]", "--workers", "2")
    told = start("plan", "digits", *quick, "--json", "--storage", sqlite_url, fake=False)
    assert told.ended(120) == 0, told.said
    plain = json.loads(told.said[told.said.index("{") :])
    (one,) = plain["works"]
    assert 0 < one["epoch_s"] < 60
    assert one["process_s"] > 0.1
    assert plain["memory_mib"] > 100
    assert plain["seconds"] >= one["process_s"] + one["setup_s"]
    assert "2 workers at once" in plain["source"]
    assert not list(tmp_path.glob("studies.db*"))
