"""What people see of a search: one snapshot, shown in a terminal, in a log and as JSON."""

import io
import json
import math

import pytest
from making import ARTICLE, attempt_at, make, train, trained, worker_for
from rich.console import Console
from rich.live import Live

from affinity_search.search.launch.workload import long_trial_warning, trial_flop
from affinity_search.search.view.snapshot import Snapshot, last_end_s, take
from affinity_search.search.view.terminal import (
    LivePanel,
    PlainLines,
    best_text,
    duration_text,
    epochs_done,
    left_text,
    panel,
    params_text,
    plain_line,
    progress_for,
    rough_text,
)
from affinity_search.search.worker.attempt import Attempt
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import USED, PlaceState
from affinity_search.storage.stored.agenda import OneStudy
from affinity_search.storage.study import StoredStudy
from affinity_search.studies.files import load
from affinity_search.studies.heads import AFFINITY, SOFTMAX


def shown(snapshot: Snapshot) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(panel(snapshot, hint="a hint"))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


@pytest.fixture
def half_done(backend: Backend) -> StoredStudy:
    """Two places of four are used, and one is held after its first epoch."""
    study = make(backend, trials=4)
    train(study, most=2)
    worker = worker_for(study, "busy [bold]worker")
    claim = worker.places.claim(worker.holder)
    assert claim is not None
    attempt = attempt_at(study, claim, worker.holder)
    attempt.record.trial.report(0.25, 0)
    return study


def test_a_search_in_the_middle(half_done: StoredStudy) -> None:
    snapshot = take(half_done)
    assert (snapshot.counts.used, snapshot.counts.running, snapshot.counts.free) == (2, 1, 1)
    assert snapshot.attempts == 3
    (running,) = snapshot.running
    assert (running.worker, running.place, running.epoch, running.score) == ("busy [bold]worker", 2, 1, 0.75)
    assert 0 <= running.since_s < 60
    assert snapshot.best is not None
    assert snapshot.best.value == half_done.optuna.best_value
    assert snapshot.best.macro_f1 == pytest.approx(1 - snapshot.best.value)
    assert json.loads(json.dumps(snapshot.to_dict()))["running"][0]["epoch"] == 1


def test_time_left_is_the_mean_time_of_a_place_over_the_workers(half_done: StoredStudy) -> None:
    with half_done.backend.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE affinity_places SET claimed_at = 100, finished_at = 160 WHERE number < 2")
    # A minute for the free place, and a minute less what the held one has had, by the one worker.
    assert take(half_done).left_s == pytest.approx(120, abs=10)


def test_time_left_at_both_ends(sqlite: Backend) -> None:
    study = make(sqlite)
    assert take(study).left_s is None
    train(study)
    assert take(study).left_s == 0


def test_the_panel(half_done: StoredStudy) -> None:
    text = shown(take(half_done))
    for part in (
        "tiny",
        "digits, n = 30, 2 epochs, protocol holdout",
        "2 of 4 trials done: 2 complete",
        "busy [bold]worker",
    ):
        assert part in text
    assert "0.7500" in text
    assert "1/2" in text
    assert "(holdout)" in text
    assert "a hint" in text


def test_the_panel_of_an_empty_study(sqlite: Backend) -> None:
    text = shown(take(make(sqlite)))
    assert "best none finished yet" in text
    assert "time left  unknown: no worker runs" in text


def test_a_score_under_the_article_s_protocol_says_so_everywhere(sqlite: Backend) -> None:
    snapshot = take(trained(sqlite, overrides=ARTICLE))
    assert "(article)" in best_text(snapshot.best, snapshot.protocol)
    assert "(article)" in shown(snapshot)
    assert snapshot.to_dict()["protocol"] == "article"


def test_a_line_for_a_log(half_done: StoredStudy) -> None:
    line = plain_line(take(half_done))
    assert line.startswith("2 of 4 trials done: 2 complete, 0 pruned, 0 failed; 1 running")
    assert "\n" not in line


def test_parameters() -> None:
    assert params_text({"lambda": 0.43512, "sigma": 90.7, "n_centers": 10}, AFFINITY) == "λ 0.4351, σ 90.7, m 10"
    assert params_text({}, SOFTMAX) == "softmax"


class TestEstimates:
    """Withheld until they mean something, and calm from then on."""

    def snapshot(self, study: StoredStudy, *, now: float, workers: int = 0) -> Snapshot:
        """`now` seconds after the claim of the held places; used ones took a minute each."""
        with study.backend.engine.begin() as connection:
            held, used = PlaceState.HELD, ", ".join(f"'{state}'" for state in USED)
            connection.exec_driver_sql(
                f"UPDATE affinity_places SET claimed_at = {study.backend.time() - now} WHERE state = '{held}'"
            )
            connection.exec_driver_sql(
                f"UPDATE affinity_places SET claimed_at = 100, finished_at = 160 WHERE state IN ({used})"
            )
        return take(study, workers)

    @pytest.fixture
    def begun(self, sqlite: Backend) -> tuple[StoredStudy, Attempt]:
        study = make(sqlite, overrides=["training.epochs=10"])
        worker = worker_for(study, "busy")
        claim = worker.places.claim(worker.holder)
        assert claim is not None
        return study, attempt_at(study, claim, worker.holder)

    def test_progress_within_the_first_epoch(
        self, begun: tuple[StoredStudy, Attempt], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study, attempt = begun
        assert left_text(self.snapshot(study, now=30)) == "known in the first epoch"
        attempt.tell_share(0.3)
        assert take(study).running[0].share == 0.0, "told now and then"
        monkeypatch.setattr(attempt, "_tell_share_at", 0.0)
        attempt.tell_share(0.5)
        snapshot = self.snapshot(study, now=30)
        assert epochs_done(snapshot.running[0]) == "0.50"
        # A trial of ten epochs takes 600 s, and three more come after it.
        assert left_text(snapshot) == "at most about 40 min"
        assert last_end_s(snapshot) == pytest.approx(570, abs=5)
        assert "(epoch 0.50/10); at most about 40 min left" in plain_line(snapshot)

    def test_one_short_trial_decides_nothing(self, half_done: StoredStudy) -> None:
        assert not self.snapshot(half_done, now=10).left_is_most
        assert self.snapshot(half_done, now=10, workers=3).left_is_most

    def test_a_worker_between_two_trials_halves_nothing(self, half_done: StoredStudy) -> None:
        alone, both = (self.snapshot(half_done, now=30, workers=number).left_s for number in (1, 2))
        assert (alone, both) == (pytest.approx(90, abs=5), pytest.approx(45, abs=5))

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (3, "10 s"),
            (41, "50 s"),
            (130, "2 min"),
            (140, "2 min 30 s"),
            (5000, "1 h 20 min"),
            (50_000, "14 h"),
        ],
    )
    def test_they_have_few_digits(self, seconds: float, text: str) -> None:
        assert rough_text(seconds) == text


class TestLongTrials:
    def test_hours_are_warned_of(self) -> None:
        warning = long_trial_warning(load("cifar10"), 2)
        assert warning is not None
        assert "a trial of 100 epochs takes very roughly" in warning
        assert "on 2 CPU cores; use a GPU, or make the study smaller: --set training.epochs=" in warning

    def test_minutes_are_not(self) -> None:
        assert long_trial_warning(load("digits"), 1) is None

    def test_the_work_is_that_of_the_convolutions(self) -> None:
        """1.6 GFLOP for a training image of CIFAR-10 by the article's network, as the benchmark counts."""
        spec = load("cifar10", ["training.epochs=1", "network.widths=[64,128,256]", "network.depth=3"])
        images = 5 * 5000 + 5 * 5 * spec.data.minority
        assert trial_flop(spec) / images == pytest.approx(1.6e9, rel=0.01)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (0, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (3600, "1 h 0 min"), (90_061, "25 h 1 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text


class TestProgress:
    @pytest.fixture(autouse=True)
    def _long_second(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Longer than any test takes, however busy the machine is."""
        monkeypatch.setattr("affinity_search.search.view.terminal.REFRESH_S", 1000.0)

    def test_plain_lines_come_with_changes_only(self, sqlite: Backend) -> None:
        study = make(sqlite)
        out = io.StringIO()
        lines = PlainLines(Console(file=out, width=200))
        lines.show(OneStudy(study))
        lines._looked = -math.inf  # a second later
        lines.show(OneStudy(study))
        assert len(out.getvalue().splitlines()) == 1
        train(study, most=1)
        lines.show(OneStudy(study))
        assert len(out.getvalue().splitlines()) == 1, "not within a second"
        lines._looked = -math.inf
        lines.show(OneStudy(study))
        assert "1 of 4 trials done" in out.getvalue()

    def test_a_terminal_has_a_live_panel(self, sqlite: Backend) -> None:
        study = make(sqlite)
        out = io.StringIO()
        console = Console(file=out, force_terminal=True, highlight=False, width=120)
        with Live(console=console, auto_refresh=False) as live:
            live_panel = LivePanel(live, lambda: "a hint")
            live_panel.show(OneStudy(study))
            live_panel.say("a [line] of its own")
            train(study)
            live_panel.show(OneStudy(study))
        assert "0 of 4 trials done" in out.getvalue()
        assert "a [line] of its own" in out.getvalue()
        assert "4 of 4 trials done" not in out.getvalue(), "not within a second"

    def test_starting_workers_are_told_of(self, sqlite: Backend) -> None:
        study, out = make(sqlite), io.StringIO()
        PlainLines(Console(file=out, width=200)).show(OneStudy(study), ["a", "b"])
        assert "2 workers starting: importing TensorFlow, reading the images" in out.getvalue()
        with Live(console=Console(file=out, force_terminal=True, width=120), auto_refresh=False) as live:
            LivePanel(live, lambda: "a hint").show(OneStudy(study), ["a", "b"])
        assert out.getvalue().count("2 workers starting") >= 2

    def test_a_worker_that_has_a_place_starts_no_more(self, half_done: StoredStudy) -> None:
        out = io.StringIO()
        with Live(console=Console(file=out, force_terminal=True, width=120), auto_refresh=False) as live:
            LivePanel(live, lambda: "a hint").show(OneStudy(half_done), ["busy [bold]worker"])
        assert "starting" not in out.getvalue()

    def test_a_quiet_minute_ends_with_a_line(self, half_done: StoredStudy) -> None:
        out = io.StringIO()
        lines = PlainLines(Console(file=out, width=200))
        for _ in range(2):
            lines.show(OneStudy(half_done))
            lines._looked = lines._said = -math.inf
        lines.show(OneStudy(half_done))
        assert out.getvalue().count("2 of 4 trials done") == 3

    def test_nothing_of_the_panel_stays(self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a command says at its end would come twice otherwise."""
        study = make(sqlite)
        monkeypatch.setenv("FORCE_COLOR", "1")
        with progress_for(OneStudy(study), lambda: "a hint") as progress:
            assert isinstance(progress, LivePanel)
            assert progress._live.transient

    def test_the_terminal_decides(self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        study = make(sqlite)
        with progress_for(OneStudy(study), lambda: "a hint") as progress:
            assert isinstance(progress, PlainLines)
        monkeypatch.setenv("FORCE_COLOR", "1")
        with progress_for(OneStudy(study), lambda: "a hint") as progress:
            assert isinstance(progress, LivePanel)
