"""Pictures beside a trial, notes and figures beside a study; and what happens where they cannot be made."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drawn import DIAGNOSTICS, epochs
from fake_objective import fake_scores
from making import attempt_at, holder, make, trained, worker_for
from optuna.artifacts import get_all_artifact_meta
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import TrialState, create_trial
from optuna_dashboard import get_note
from PIL import Image

from affinity_search.search.training.heads.affinity_diagnostics import Diagnostics
from affinity_search.search.training.results import EpochScore, best_epoch
from affinity_search.search.view.figures import trial as drawing
from affinity_search.search.view.figures.study import COMPLETE, MOST_POINTS, PRUNED, About, Point, figures, points_of
from affinity_search.search.view.pictures import Album, History, PictureStore, history_of
from affinity_search.search.view.publishing import Reporter
from affinity_search.search.worker.attempt import Attempt
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.files import StudyFiles
from affinity_search.storage.places.claims import Places
from affinity_search.studies.heads import AFFINITY, SOFTMAX
from affinity_search.studies.metrics import METRICS

NAMES = tuple("abcdefghij")
SMALL = (True, True, False, False, False) * 2
ABOUT = About("holdout", AFFINITY)


class TestDrawing:
    def test_four_pictures_that_can_be_opened(self) -> None:
        files = drawing.draw("trial 1", "holdout", epochs(), [10, 1000] * 5)
        assert tuple(files) == drawing.FILES
        for content in files.values():
            with Image.open(io.BytesIO(content)) as image:
                assert image.format == "PNG"
                assert min(image.size) > 300

    def test_the_softmax_head_has_no_loss_diagnostics(self) -> None:
        assert tuple(drawing.draw("trial 1", "holdout", epochs(told=None), [10, 1000] * 5)) == drawing.FILES[:3]

    @pytest.mark.parametrize(("told", "named"), [(DIAGNOSTICS, "eq. (7)"), (None, "cross-entropy")])
    def test_the_loss_is_called_what_the_head_minimises(
        self, monkeypatch: pytest.MonkeyPatch, told: Diagnostics | None, named: str
    ) -> None:
        titles: list[str] = []
        styled = drawing.styled
        monkeypatch.setattr(
            drawing, "styled", lambda ax, title, *rest, **more: titles.append(title) or styled(ax, title, *rest, **more)
        )
        head = AFFINITY if told else SOFTMAX
        drawing.draw("trial 1", "holdout", epochs(told=told), [10, 1000] * 5, head=head)
        assert [title for title in titles if title.startswith("training loss")] == [f"training loss, {named}"]

    def test_a_single_epoch(self) -> None:
        assert len(drawing.draw("trial 1", "article", epochs(n=1), [10, 1000] * 5)) == 4


class TestPictures:
    """The worker keeps what they are drawn from; the dashboard's store draws when somebody reads one."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / "files"

    def attempt(self, backend: Backend, root: Path, told: list[str] | None = None) -> Attempt:
        study = make(backend)
        claim = Places.of(study).claim(holding := holder())
        assert claim is not None
        said = [] if told is None else told
        album = Album(StudyFiles(root, study.token), [10, 1000] * 5, said.append, NAMES, SMALL)
        attempt = attempt_at(study, claim, holding, album)
        for epoch in epochs():
            attempt.report(epoch)
        return attempt

    def ids(self, backend: Backend, attempt: Attempt) -> list[str]:
        found = get_all_artifact_meta(attempt.study.optuna.trials[attempt.number], storage=backend.rdb)
        assert [one.filename for one in found] == list(drawing.FILES)
        return [one.artifact_id for one in found]

    @pytest.mark.parametrize("end", ["complete", "prune"])
    def test_drawn_when_they_are_read_and_only_then(self, backend: Backend, root: Path, end: str) -> None:
        attempt = self.attempt(backend, root)
        getattr(attempt, end)()
        assert not (root / "artifacts").exists(), "a trial's cost is its training"
        store = PictureStore(root)
        for artifact_id in self.ids(backend, attempt):
            with store.open_reader(artifact_id) as reader, Image.open(reader) as image:
                assert (image.format, min(image.size) > 300) == ("PNG", True)
        assert len(list((root / "artifacts").iterdir())) == 4, "the next reader finds them"

    def test_they_show_what_was_trained(self, sqlite: Backend, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        attempt = self.attempt(sqlite, root)
        attempt.complete()
        shown: list[object] = []
        monkeypatch.setattr(drawing, "draw", lambda *what: (shown.extend(what), {"a.png": b"picture"})[1])
        with PictureStore(root).open_reader(self.ids(sqlite, attempt)[0]) as reader:
            assert reader.read() == b"picture"
        title, protocol, scores, sizes, names, minority, metric, head = shown
        assert str(title).startswith("trial 0: λ ")
        assert (protocol, sizes, names, minority) == ("holdout", (10, 1000) * 5, NAMES, SMALL)
        assert (metric, head) == (METRICS["macro_f1"], AFFINITY)
        assert [(one.loss, one.scores.per_class_f1) for one in scores] == [  # type: ignore[attr-defined]
            (one.loss, one.scores.per_class_f1) for one in epochs()
        ]
        best = best_epoch(epochs())
        assert scores[best.epoch].scores.confusion == best.scores.confusion  # type: ignore[index]

    def test_a_trial_that_has_none_yet(self, sqlite: Backend, root: Path) -> None:
        attempt = self.attempt(sqlite, root)
        store = PictureStore(root)
        first = self.ids(sqlite, attempt)[0]
        with store.open_reader(first) as reader, Image.open(reader) as blank:
            small = blank.size
        attempt.complete()
        with store.open_reader(first) as reader, Image.open(reader) as image:
            assert image.size[1] > small[1], "the stand-in is not kept"

    def test_the_history_is_found_by_its_trial(self, sqlite: Backend, root: Path) -> None:
        attempt = self.attempt(sqlite, root)
        files = StudyFiles(root, attempt.study.token)
        assert history_of(files, attempt.study.optuna.trials[0]) is None, "it has not ended"
        attempt.complete()
        found = history_of(files, attempt.study.optuna.trials[0])
        assert found is not None
        assert [epoch.loss for epoch in found.epochs] == [epoch.loss for epoch in epochs()]

    def test_a_history_of_earlier_versions_has_the_article_s_small_classes(self, sqlite: Backend, root: Path) -> None:
        attempt = self.attempt(sqlite, root)
        attempt.complete()
        found = history_of(StudyFiles(root, attempt.study.token), attempt.study.optuna.trials[0])
        assert found is not None
        plain = found.to_dict()
        del plain["minority"], plain["head"]
        assert History.from_dict(plain).minority == (True, False) * 5
        assert History.from_dict(plain).head == "affinity"
        for epoch in plain["epochs"]:
            epoch["diagnostics"] = None
        assert History.from_dict(plain).head == "softmax"

    def test_half_a_history_is_none(self, sqlite: Backend, root: Path) -> None:
        attempt = self.attempt(sqlite, root)
        attempt.complete()
        (history,) = (root / attempt.study.token / "histories").iterdir()
        history.write_bytes(history.read_bytes()[:100])
        with PictureStore(root).open_reader(self.ids(sqlite, attempt)[0]) as reader:
            assert reader.read(4) == b"\x89PNG"

    def test_a_folder_that_cannot_be_written_fails_no_trial(self, sqlite: Backend, root: Path) -> None:
        root.write_text("a file is in the way")
        told: list[str] = []
        attempt = self.attempt(sqlite, root, told)
        attempt.complete()
        (trial,) = attempt.study.optuna.trials
        assert trial.state == TrialState.COMPLETE
        assert len(told) == 1
        assert "trial 0" in told[0]
        assert "cannot be written (Not a directory)" in told[0]

    def test_removed_with_what_they_are_drawn_from(self, sqlite: Backend, root: Path) -> None:
        attempt = self.attempt(sqlite, root)
        attempt.complete()
        store = PictureStore(root)
        for artifact_id in self.ids(sqlite, attempt):
            store.remove(artifact_id)
        assert [path for path in root.rglob("*") if path.is_file()] == []

    def test_what_is_no_picture_of_ours_is_not_found(self, root: Path) -> None:
        with pytest.raises(ArtifactNotFound):
            PictureStore(root).open_reader("4dcb059a-0000-4000-8000-000000000000")


class TestNotes:
    def test_of_a_study_and_its_best(self, backend: Backend) -> None:
        study = trained(backend, trials=6)
        assert Reporter(study).write()
        note = get_note(study.optuna)
        assert "6 of 6 places used: 6 complete" in note
        assert "protocol **holdout**" in note
        best = study.optuna.best_trial
        assert f"| 1 | {best.number} | {1 - (best.value or 0):.4f} |" in note

    def test_nothing_is_written_twice(self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        reporter = Reporter(trained(sqlite))
        assert reporter.write()
        monkeypatch.setattr("optuna_dashboard.save_note", pytest.fail)
        assert not reporter.write()

    def test_a_trial_that_ends_after_its_place_is_seen(self, sqlite: Backend) -> None:
        study = trained(sqlite, trials=2)
        with sqlite.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE trials SET state = 'RUNNING' WHERE number = 1")
        reporter = Reporter(study)
        assert reporter.write()
        with sqlite.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE trials SET state = 'COMPLETE' WHERE number = 1")
        assert reporter.write()
        assert not reporter.write()

    def test_an_empty_study(self, sqlite: Backend) -> None:
        study = make(sqlite)
        assert Reporter(study).write()
        assert "0 of 4 places used" in get_note(study.optuna)


class TestStudyFigures:
    def points(self, n: int) -> list[Point]:
        params = [{"lambda": 0.1 + 0.5 * (i % 2), "sigma": 10.0 + i, "n_centers": 1 + i % 5} for i in range(n)]
        states = [COMPLETE if i % 7 == 0 else PRUNED for i in range(n)]
        scores = [(0.5 + i % 7 / 20, 0.4, 0.6, 1.0, f"w{i % 2}") for i in range(n)]
        return [Point(i, states[i], *scores[i], params[i], 1.0 * i) for i in range(n)]

    def test_all_five_and_what_they_show(self) -> None:
        made = figures(self.points(30), ABOUT)
        assert set(made) == {"best-value", "lambda-sigma", "f1-by-n-centers", "minority-majority", "time-by-worker"}
        staircase = made["best-value"].data[0]
        assert list(staircase.y) == sorted(staircase.y), "the best only rises"
        assert staircase.x[-1] == 30
        pruned, in_legend, complete, _ = made["lambda-sigma"].data
        assert (in_legend.name, in_legend.marker.symbol) == (PRUNED, pruned.marker.symbol)
        assert (pruned.name, complete.name) == (PRUNED, COMPLETE)
        assert pruned.marker.symbol != complete.marker.symbol
        for trace in (pruned, complete):
            of_state = [p.score for p in self.points(30) if p.state == trace.name]
            assert list(trace.marker.color) == of_state
            assert len(of_state) > 4
        assert [trace.name for trace in made["time-by-worker"].data] == ["w0", "w1"]

    def test_ten_thousand_trials_stay_small_and_keep_the_best(self) -> None:
        points = self.points(10_000)
        points[4321] = Point(
            4321, COMPLETE, 0.99, 0.9, 0.9, 1.0, "w0", {"lambda": 0.5, "sigma": 5.0, "n_centers": 2}, 1.0
        )
        made = figures(points, ABOUT)
        traces = made["lambda-sigma"].data
        assert sum(len(trace.x) for trace in traces) <= MOST_POINTS + 3
        assert 0.99 in traces[-2].marker.color
        assert sum(len(figure.to_json()) for figure in made.values()) < 1_000_000

    def test_pruned_trials_are_most_points_and_failed_ones_none(self) -> None:
        scores = fake_scores(0.5).to_dict() | {"best_epoch": 1, "epochs": 1, "duration_s": 2.0}
        states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED, TrialState.FAIL]
        trials = [
            create_trial(state=state, value=None if state == TrialState.FAIL else 0.5, user_attrs={"scores": scores})
            for state in states
        ]
        points = points_of(trials)
        assert [point.state for point in points] == [COMPLETE, PRUNED, PRUNED]
        assert [point.spent_s for point in points] == [2.0, 4.0, 6.0]

    def test_log_axes_have_round_ticks(self) -> None:
        made = figures(self.points(30), replace(ABOUT, log=["sigma"]))
        axis = made["lambda-sigma"].layout.yaxis
        assert (axis.type, axis.ticktext) == ("log", ("10", "20", "50", "100", "200", "500"))
        assert made["lambda-sigma"].layout.xaxis.type is None

    def test_softmax_and_an_empty_study(self) -> None:
        softmax = [Point(1, COMPLETE, 0.5, 0.4, 0.6, 1.0, "w", {}, 1.0)]
        assert set(figures(softmax, About("holdout", SOFTMAX))) == {"best-value", "minority-majority", "time-by-worker"}
        assert figures([], ABOUT) == {}
        assert json.dumps(fake_scores(0.5).to_dict())


def test_a_worker_puts_its_diagnostics_beside_the_scores(sqlite: Backend) -> None:
    study = make(sqlite, trials=1)
    worker = worker_for(study)
    epochs = worker.trainer.epochs

    def with_diagnostics(*what: Any, **how: Any) -> Iterator[EpochScore]:
        for score in epochs(*what, **how):
            yield replace(score, diagnostics=DIAGNOSTICS)

    worker.trainer.epochs = with_diagnostics  # type: ignore[assignment,method-assign]
    claim = worker.places.claim(worker.holder)
    assert claim is not None
    worker.run(claim, lambda: False)
    found = study.optuna.trials[0].user_attrs["scores"]["diagnostics"]
    assert Diagnostics.from_dict(found) == DIAGNOSTICS
