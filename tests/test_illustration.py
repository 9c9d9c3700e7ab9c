"""Pictures beside a trial, notes and figures beside a study; and what happens where they cannot be made."""

import io
import json
from pathlib import Path

import pytest
from fake_objective import fake_scores
from making import holder, make, trained, worker_for
from optuna.artifacts import get_all_artifact_meta
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import TrialState
from optuna_dashboard import get_note
from PIL import Image

from search.attempt import Attempt
from search.figures import trial as drawing
from search.figures.study import MOST_POINTS, Point, figures
from search.pictures import Album, PictureStore, history_of
from search.reporting import Reporter
from search.training.diagnostics import Diagnostics
from search.training.metrics import Scores
from search.training.results import EpochScore, best_epoch
from storage.backend import Backend
from storage.files import StudyFiles
from storage.places import Places
from storage.tables import PlaceState

DIAGNOSTICS = Diagnostics(1.2, 0.3, 0.95, (3, 2) * 5, 4, 1.0, 2.0, 0.5)


def epochs(told: Diagnostics | None = DIAGNOSTICS, n: int = 3) -> list[EpochScore]:
    confusion = tuple(tuple(int(8 * (row == column)) + (row + column) % 2 for column in range(10)) for row in range(10))
    each = tuple(0.05 * number for number in range(10))
    scores = Scores(0.4, 0.5, each, (8,) * 10, 0.3, 0.5, confusion)
    return [EpochScore(number, 1.0 / (number + 1), scores, 0.1, told) for number in range(n)]


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
        drawing.draw("trial 1", "holdout", epochs(told=told), [10, 1000] * 5)
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
        album = Album(StudyFiles(root, study.token), [10, 1000] * 5, said.append)
        attempt = Attempt(study, claim, holding, {}, album)
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
        title, protocol, scores, sizes = shown
        assert str(title).startswith("trial 0: λ ")
        assert (protocol, sizes) == ("holdout", (10, 1000) * 5)
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
        (of_trial,) = [get_note_of(study, best.number)]
        assert of_trial.startswith(
            f"**Rank 1** of the trials (complete): macro F1 **{1 - (best.value or 0):.4f}** (holdout)"
        )
        assert of_trial.count("minority |") == 5

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

    def test_those_that_fall_behind_lose_theirs(self, sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("search.reporting.BEST", 2)
        study = trained(sqlite, trials=3)
        reporter = Reporter(study)
        reporter.write()
        worst = [t.number for t in sorted(study.optuna.trials, key=lambda t: t.value or 0)[:2]][-1]
        place = Places.of(study).rows(PlaceState.COMPLETE)
        number = next(row["number"] for row in place if row["trial"] == worst)
        with sqlite.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE affinity_places SET value = 1.0 WHERE number = {number}")
        reporter._seen = None
        reporter.write()
        assert get_note_of(study, worst) == ""

    def test_an_empty_study(self, sqlite: Backend) -> None:
        study = make(sqlite)
        assert Reporter(study).write()
        assert "0 of 4 places used" in get_note(study.optuna)


def get_note_of(study: object, number: int) -> str:
    from optuna.trial import Trial

    stored = study.optuna  # type: ignore[attr-defined]
    trial = next(t for t in stored.trials if t.number == number)
    return get_note(Trial(stored, trial._trial_id))


class TestStudyFigures:
    def points(self, n: int) -> list[Point]:
        params = [{"lambda": 0.1 + 0.5 * (i % 2), "sigma": 10.0 + i, "n_centers": 1 + i % 5} for i in range(n)]
        return [Point(i, 0.5 + i % 7 / 20, 0.4, 0.6, 1.0, f"w{i % 2}", one, 1.0 * i) for i, one in enumerate(params)]

    def test_all_five_and_what_they_show(self) -> None:
        made = figures(self.points(30), "holdout")
        assert set(made) == {"best-value", "lambda-sigma", "f1-by-n-centers", "minority-majority", "time-by-worker"}
        staircase = made["best-value"].data[0]
        assert list(staircase.y) == sorted(staircase.y), "the best only rises"
        assert staircase.x[-1] == 30
        assert list(made["lambda-sigma"].data[0].marker.color) == [p.macro_f1 for p in self.points(30)]
        assert [trace.name for trace in made["time-by-worker"].data] == ["w0", "w1"]

    def test_ten_thousand_trials_stay_small_and_keep_the_best(self) -> None:
        points = self.points(10_000)
        points[4321] = Point(4321, 0.99, 0.9, 0.9, 1.0, "w0", {"lambda": 0.5, "sigma": 5.0, "n_centers": 2}, 1.0)
        made = figures(points, "holdout")
        assert len(made["lambda-sigma"].data[0].x) <= MOST_POINTS + 1
        assert 0.99 in made["lambda-sigma"].data[0].marker.color
        assert sum(len(figure.to_json()) for figure in made.values()) < 1_000_000

    def test_softmax_and_an_empty_study(self) -> None:
        softmax = [Point(1, 0.5, 0.4, 0.6, 1.0, "w", {}, 1.0)]
        assert set(figures(softmax, "holdout")) == {"best-value", "minority-majority", "time-by-worker"}
        assert figures([], "holdout") == {}
        assert json.dumps(fake_scores(0.5).to_dict())


def test_a_worker_puts_its_diagnostics_beside_the_scores(sqlite: Backend) -> None:
    study = make(sqlite, trials=1)
    worker = worker_for(study)
    run = worker.objective.run

    def with_diagnostics(params: object, seed: int, on_epoch: object, *rest: object, **how: object) -> object:
        def told(score: EpochScore) -> None:
            on_epoch(EpochScore(score.epoch, score.loss, score.scores, 0.1, DIAGNOSTICS))  # type: ignore[operator]

        return run(params, seed, told, *rest, **how)  # type: ignore[arg-type]

    worker.objective.run = with_diagnostics  # type: ignore[assignment,method-assign]
    claim = worker.places.claim(worker.holder)
    assert claim is not None
    worker.run(claim, lambda: False)
    found = study.optuna.trials[0].user_attrs["scores"]["diagnostics"]
    assert Diagnostics.from_dict(found) == DIAGNOSTICS
