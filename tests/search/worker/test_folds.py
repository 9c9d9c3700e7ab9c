"""A trial of several trainings: which images each holds out, what the trial's value is, and how it goes on."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from conftest import Cli
from hypothesis import given
from hypothesis import strategies as st
from making import attempt_at, holder, make, open_study
from numpy.testing import assert_array_equal

from affinity_search.search import devices
from affinity_search.search.training.checkpoints import TrainingState
from affinity_search.search.training.data.dividing import Fold, held_out
from affinity_search.search.training.errors import DataError, TrainingInterrupted
from affinity_search.search.training.metrics import Scores
from affinity_search.search.training.results import EpochScore, RunningValue, best_epochs, overall
from affinity_search.search.worker.images import read_splits
from affinity_search.search.worker.setup import WorkerOptions, work
from affinity_search.search.worker.study_trainer import StudyTrainer
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.places.claims import Places
from affinity_search.storage.stored.agenda import OneStudy
from affinity_search.storage.stored.planning import plan_final_runs
from affinity_search.storage.study import StoredStudy, load_study
from affinity_search.storage.trials.facts import TrialFacts
from affinity_search.storage.trials.sampling import make_pruner
from affinity_search.storage.trials.seeds import run_seed, trial_seed
from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.files import load
from affinity_search.studies.model.spec import StudySpec

FOLDS = "data.validation={ folds = 3 }"
REPEATS = "data.validation={ repeats = 3, share = 0.25 }"


def digits(*overrides: str) -> StudySpec:
    return load("digits", ["training.epochs=3", "training.precision=float32", *overrides])


class TestWhoValidates:
    def test_in_folds_every_image_once_and_classes_alike(self) -> None:
        spec = digits(FOLDS)
        parts = [read_splits(spec, None, run=run) for run in range(3)]
        pixels = [{image.tobytes() for image in held.images} for _, held in parts]
        everything = {image.tobytes() for part in parts[0] for image in part.images}
        assert set.union(*pixels) == everything
        assert sum(map(len, pixels)) == len(everything), "no image is in two folds"
        sizes = np.array([held.counts(10) for _, held in parts])
        assert (sizes.max(axis=0) - sizes.min(axis=0) <= 1).all()
        for train, held in parts:
            assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in held.images}

    def test_the_first_repeat_is_the_plain_holdout_and_others_are_others(self) -> None:
        spec, plain = digits(REPEATS), digits("data.validation=0.25")
        held = [read_splits(spec, None, run=run)[1] for run in range(3)]
        assert_array_equal(held[0].images, read_splits(plain, None)[1].images)
        assert len({part.images.tobytes() for part in held}) == 3
        assert len({len(part) for part in held}) == 1

    def test_a_group_is_in_one_fold(self) -> None:
        groups = np.repeat(np.arange(12, dtype=np.int32), 5)
        labels = np.tile(np.array([0, 1, 0, 1, 1], np.int32), 12)
        folds = [held_out(labels, groups, Fold(number, 3), 0) for number in range(3)]
        assert_array_equal(np.sum(folds, axis=0), np.ones(60))
        kept = [set(groups[fold].tolist()) for fold in folds]
        assert sum(map(len, kept)) == 12 == len(set.union(*kept))

    def test_a_class_with_fewer_images_than_folds_is_told_before_anything_is_stored(self, cli: Cli) -> None:
        ran = cli("create", "digits", "--set", "data.validation={folds=20}", "--set", "data.minority=4", fails=True)
        assert "20 folds need 20 images of every class, and the smallest class has" in ran.err
        assert "no database" in cli("status", "digits", fails=True).err


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{ folds = 1 }", "data.validation.folds: 1 given"),
        ("{ folds = 3, share = 0.2 }", "data.validation: {'folds': 3, 'share': 0.2} given"),
        ("{ repeats = 3 }", "data.validation: {'repeats': 3} given"),
        ("{ fold = 3 }", "did you mean data.validation.folds?"),
        ("0.7", "data.validation: 0.7 given; allowed: a number above 0 and up to 0.5, { folds = 2 to 20 }"),
    ],
)
def test_mistakes(value: str, words: str) -> None:
    with pytest.raises(StudyFileError) as raised:
        digits(f"data.validation={value}")
    assert words in str(raised.value)


def test_the_article_validates_on_no_folds() -> None:
    with pytest.raises(StudyFileError, match="nothing, as the article protocol scores the test images"):
        digits("protocol=article", FOLDS)


def test_a_file_with_folds_comes_back_from_its_text(tmp_path: Path) -> None:
    for value in (FOLDS, REPEATS):
        (tmp_path / "again.toml").write_text(digits(value).to_toml())
        assert load(str(tmp_path / "again.toml")) == digits(value)


def score(epoch: int, run: int, macro_f1: float) -> EpochScore:
    f1, confusion = (macro_f1, macro_f1), ((1, 0), (0, 1))
    scores = Scores(macro_f1, macro_f1, f1, (1, 1), macro_f1, macro_f1, confusion, {"worst_recall": macro_f1})
    return EpochScore(epoch, 1.0, scores, 1.0, run=run)


class TestValue:
    @given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=1, max_size=5))
    def test_it_ends_at_the_mean_of_the_best_epochs(self, runs: list[list[float]]) -> None:
        value = RunningValue("macro_f1", 4)
        epochs = [score(4 * run + at, run, f1) for run, scores in enumerate(runs) for at, f1 in enumerate(scores)]
        values = [value.add(epoch) for epoch in epochs]
        assert values[-1] == pytest.approx(1 - fmean(map(max, runs)))
        assert values[3] == pytest.approx(1 - max(runs[0])), "after the first training it is that one's"
        assert overall(epochs).scores.macro_f1 == pytest.approx(fmean(map(max, runs)))
        assert [best.run for best in best_epochs(epochs)] == list(range(len(runs)))

    def test_a_training_that_has_begun_weighs_as_much_as_is_done_of_it(self) -> None:
        value = RunningValue("macro_f1", 2)
        told = [value.add(score(at, at // 2, f1)) for at, f1 in enumerate([0.5, 0.8, 0.2, 0.6])]
        assert told == pytest.approx([0.5, 0.2, (0.2 + 0.5 * 0.8) / 1.5, 0.3])

    def test_counts_are_added_and_the_epoch_is_the_middle_one(self) -> None:
        epochs = [score(at, at // 3, f1) for at, f1 in enumerate([0.1, 0.9, 0.2, 0.7, 0.1, 0.1, 0.1, 0.2, 0.8])]
        mean = overall(epochs)
        assert (mean.number, mean.scores.support) == (2, (3, 3))
        assert mean.scores.confusion == ((3, 0), (0, 3))
        assert mean.scores["worst_recall"] == pytest.approx(0.8)


@pytest.fixture
def study(sqlite: Backend) -> StoredStudy:
    wanted = [FOLDS, "training.epochs=3", "training.precision=float32", "network.widths=[4]", "pruner.kind=none"]
    study, _ = open_study(sqlite, "digits", trials=1, overrides=wanted)
    return study.settle_precision("float32")


PARAMS: dict[str, float | int] = {"lambda": 0.5, "sigma": 20.0, "n_centers": 2}


class TestTraining:
    def trainer(self, study: StoredStudy) -> StudyTrainer:
        return StudyTrainer(devices.configure("cpu", 2), study.spec, "float32", None)

    def test_a_trial_is_the_mean_of_its_trainings(self, study: StoredStudy) -> None:
        assert work(OneStudy(study), WorkerOptions("cpu", 2)) == 1
        (trial,) = study.optuna.get_trials()
        assert sorted(trial.intermediate_values) == list(range(9))
        seed = trial_seed(study.spec.seed, 0)
        alone = []
        for run in range(3):
            train, held = read_splits(study.spec, None, run=run)
            trainer = self.trainer(study)
            trainer._train, trainer._evaluation = train, held  # the images of this training alone
            epochs = list(trainer.epochs(trial.params, run_seed(seed, run), max_centers=study.spec.max_centers))
            alone.append(max(epoch.scores.macro_f1 for epoch in epochs))
        assert trial.value == pytest.approx(1 - fmean(alone), abs=1e-6)
        assert trial.value == pytest.approx(trial.intermediate_values[8])
        scores = TrialFacts.of(trial).scores
        assert scores is not None
        assert scores.epochs == 9
        assert scores.best_epoch <= 3
        assert scores.macro_f1 == pytest.approx(1 - trial.value)

    @pytest.mark.parametrize("stop_after", [2, 3, 4])
    def test_it_goes_on_bit_for_bit_within_and_between_trainings(self, study: StoredStudy, stop_after: int) -> None:
        trainer = self.trainer(study)
        whole = list(trainer.epochs(PARAMS, 7, runs=3))
        kept: TrainingState | None = None
        for at, _ in enumerate(trainer.epochs(PARAMS, 7, runs=3), 1):
            if at == stop_after:
                kept = trainer.state()
                break
        assert kept is not None
        assert [epoch.epoch for epoch in kept.epochs] == list(range(stop_after))
        other = self.trainer(study)
        again = list(other.epochs(PARAMS, 7, runs=3, resume=kept))
        assert [(e.epoch, e.run, e.loss, e.scores) for e in again] == [
            (e.epoch, e.run, e.loss, e.scores) for e in whole
        ]

    def test_a_final_run_trains_once(self, study: StoredStudy) -> None:
        work(OneStudy(study), WorkerOptions("cpu", 2))
        search = load_study(study.backend, study.name)
        final = plan_final_runs(search, {0: search.optuna.get_trials()[0].params}, 1)
        assert final.spec.data.validation == pytest.approx(1 / 3), "it holds as much out as one of the trainings"
        assert work(OneStudy(final), WorkerOptions("cpu", 2)) == 1
        assert sorted(final.optuna.get_trials()[0].intermediate_values) == [0, 1, 2]

    def test_one_that_is_stopped_is_free_again(self, study: StoredStudy) -> None:
        claim = Places.of(study).claim(holder())
        assert claim is not None
        attempt = attempt_at(study, claim, holder())
        with pytest.raises(TrainingInterrupted):
            attempt.train(self.trainer(study), lambda: len(attempt.epochs) >= 4)
        attempt.give_back("asked to stop")
        assert work(OneStudy(study), WorkerOptions("cpu", 2)) == 1
        last = study.optuna.get_trials()[-1]
        assert TrialFacts.of(last).resumed_epochs == 4
        assert len(last.intermediate_values) == 9


@pytest.mark.usefixtures("fake_training")
def test_the_pruner_counts_over_all_trainings(backend: Backend) -> None:
    options = ["training.epochs=4", "data.validation={folds=3}", "pruner={kind='hyperband'}"]
    study = make(backend, trials=2, overrides=options)
    pruner = make_pruner(study.spec.pruner, study.spec.trial_epochs)
    assert pruner._max_resource == 12  # type: ignore[attr-defined]
    assert study.spec.trial_epochs == 12


def test_own_groups_too_few_for_folds() -> None:
    labels, groups = np.array([0, 1, 0, 1], np.int32), np.array([0, 0, 1, 1], np.int32)
    with pytest.raises(DataError, match="3 parts of the images needs 3 groups, and there are 2"):
        held_out(labels, groups, Fold(0, 3), 0)
