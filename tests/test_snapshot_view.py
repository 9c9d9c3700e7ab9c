"""What people see of a search: one snapshot, shown in a terminal, in a log and as JSON."""

import io
import json
import math

import pytest
from making import ARTICLE, make, train, trained, worker_for
from rich.console import Console
from rich.live import Live

from search.attempt import Attempt
from search.progress import LivePanel, PlainLines, progress_for
from search.snapshot import Snapshot, take
from search.view import best_text, duration_text, panel, params_text, plain_line
from storage.backend import Backend
from storage.study import StoredStudy


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
    attempt = Attempt(study, claim, worker.holder, {})
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
    assert "best  none finished yet" in text
    assert "time left  unknown: nobody is working on it" in text


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
    assert params_text({"lambda": 0.43512, "sigma": 90.7, "n_centers": 10}) == "λ 0.4351, σ 90.7, m 10"
    assert params_text({}) == "softmax"


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
        monkeypatch.setattr("search.progress.REFRESH_S", 1000.0)

    def test_plain_lines_come_with_changes_only(self, sqlite: Backend) -> None:
        study = make(sqlite)
        out = io.StringIO()
        lines = PlainLines(Console(file=out, width=200))
        lines.show(study)
        lines._looked = -math.inf  # a second later
        lines.show(study)
        assert len(out.getvalue().splitlines()) == 1
        train(study, most=1)
        lines.show(study)
        assert len(out.getvalue().splitlines()) == 1, "not within a second"
        lines._looked = -math.inf
        lines.show(study)
        assert "1 of 4 trials done" in out.getvalue()

    def test_a_terminal_has_a_live_panel(self, sqlite: Backend) -> None:
        study = make(sqlite)
        out = io.StringIO()
        console = Console(file=out, force_terminal=True, highlight=False, width=120)
        with Live(console=console, auto_refresh=False) as live:
            live_panel = LivePanel(live, "a hint")
            live_panel.show(study)
            live_panel.say("a [line] of its own")
            train(study)
            live_panel.show(study)
        assert "0 of 4 trials done" in out.getvalue()
        assert "a [line] of its own" in out.getvalue()
        assert "4 of 4 trials done" not in out.getvalue(), "not within a second"

    def test_the_terminal_decides(self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        study = make(sqlite)
        with progress_for(study) as progress:
            assert isinstance(progress, PlainLines)
        monkeypatch.setenv("FORCE_COLOR", "1")
        with progress_for(study) as progress:
            assert isinstance(progress, LivePanel)
