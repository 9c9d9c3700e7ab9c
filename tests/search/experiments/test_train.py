"""The use of a search: what `train` trains, what it records, and what its file and its card say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from fake_objective import fake_scores
from making import ARTICLE, attempt_at, holder, make, trained
from PIL import Image
from sqlalchemy import func, select

from affinity_search.search import devices

DEVICE = devices.configure("cpu", 2)

from affinity_search.search.api import compare
from affinity_search.search.experiments.models.predict import Forward
from affinity_search.search.experiments.models.train import Settings, settings, train
from affinity_search.search.training import fit  # the device comes first
from affinity_search.search.training.networks.saving import load_model
from affinity_search.search.training.results import EpochScore
from affinity_search.search.worker.exits import Exit
from affinity_search.search.worker.images import read_splits, read_test
from affinity_search.search.worker.setup import WorkerOptions
from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.errors import NothingToExportError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.results.evaluations import openings
from affinity_search.storage.results.export import best_trials
from affinity_search.storage.study import StoredStudy, history
from affinity_search.storage.trials.facts import TrialFacts, TrialScores

HERE = WorkerOptions("cpu", 2)
COLOURS = {"red, dark": (200, 20, 20), "gr|een": (20, 200, 20), "blå": (20, 20, 200)}
SMALL = ("space.n_centers={ low = 1, high = 2 }",)


def coloured(root: Path) -> Path:
    """Three classes of 30 images that differ in colour."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(30):
            pixels = np.clip(rng.normal(colour, 20, (12, 10, 3)), 0, 255).astype("uint8")
            Image.fromarray(pixels).save(root / name / f"{number:02}.png")
    return root


def own(path: Path, kind: str = "folder") -> tuple[str, ...]:
    size = ", size=[8, 8]" if kind == "folder" else ""
    network = "network={kind='mlp', widths=[8], depth=1}" if kind == "features" else "network.widths=[4, 8]"
    return (
        f"data={{set='{kind}', path='{path}'{size}, validation=0.2}}",
        network,
        "training.epochs=8",
        "training.batch=8",
        *SMALL,
    )


def run(study: StoredStudy, chosen: Settings | None = None) -> Any:
    return train(study, HERE, chosen or settings(study, None, None), lambda score: None)


def test_the_settings_are_those_of_the_best_trial(sqlite: Backend) -> None:
    study = trained(sqlite, overrides=SMALL)
    (best,) = best_trials(study)
    chosen = settings(study, None, None)
    assert (chosen.trial, chosen.params) == (best.trial.number, best.trial.params)
    assert (chosen.epochs, chosen.seed) == (best.scores.best_epoch, TrialFacts.of(best.trial).seed)
    assert settings(study, 0, 1) == settings(study, 0, 1)
    assert settings(study, 0, 1).trial == 0
    assert settings(study, 0, 1).epochs == 1


def test_it_trains_on_all_images_but_the_test_s_for_the_chosen_epochs(sqlite: Backend) -> None:
    study = trained(sqlite, trials=1, overrides=SMALL)
    seen: list[int] = []
    chosen = Settings(0, {"lambda": 0.4, "sigma": 20.0, "n_centers": 2}, 5, 1, None)
    made = train(study, HERE, chosen, lambda score: seen.append(score.number))
    assert seen == [1], "the study has two epochs"
    train_images, validation = read_splits(study.spec, None)
    assert made.about["data"]["train"] == np.add(train_images.counts(10), validation.counts(10)).tolist()
    assert made.about["test"]["support"] == list(read_test(study.spec, None)[0].counts(10))
    assert (made.about["settings"]["epochs"], made.about["schedule_epochs"]) == (1, 2)


def test_the_learning_rate_is_that_of_the_whole_training(sqlite: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    real = fit.learning_rate

    def heard(*given: Any) -> float:
        rates.append(real(*given))
        return rates[-1]

    monkeypatch.setattr(fit, "learning_rate", heard)
    study = trained(sqlite, trials=1, overrides=(*SMALL, "training.epochs=4", "training.schedule=cosine"))
    chosen = settings(study, 0, 2)
    run(study, chosen)
    whole = chosen.params.get("learning_rate", 5e-3)
    assert rates == pytest.approx([whole, whole * 0.5 * (1 + np.cos(np.pi / 4))])


def test_the_scores_are_those_of_the_saved_model_and_the_history_tells_of_them(sqlite: Backend) -> None:
    study = trained(sqlite, trials=1, overrides=SMALL)
    made = run(study)
    test, _ = read_test(study.spec, None)
    right = Forward(DEVICE, made.model, 64)(test.images).argmax(axis=1) == test.labels
    recalls = [float(right[test.labels == label].mean()) for label in range(10)]
    assert made.about["test"]["per_class_recall"] == pytest.approx(recalls)
    assert made.model.get_layer("about").about["test"] == made.about["test"]
    lines = [(one["kind"], one["text"]) for one in history(study)][-3:]
    assert [kind for kind, _ in lines] == ["opened", "test_data", "trained"]
    assert "the test images, by " in lines[0][1]
    assert f"macro F1 {made.about['test']['macro_f1']:.4f} on the test images" in lines[2][1]
    # No final run: its scores are of another training, and the export must not quote them as such.
    assert openings(study) == []
    with sqlite.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(tables.evaluations)).scalar_one() == 0


def test_under_article_the_training_images_are_the_search_s(sqlite: Backend) -> None:
    study = trained(sqlite, trials=1, overrides=(*SMALL, *ARTICLE))
    made = run(study)
    images, evaluation = read_splits(study.spec, None)
    assert made.about["data"]["train"] == list(images.counts(10))
    assert made.about["test"]["support"] == list(evaluation.counts(10))


def test_the_adjustment_is_the_trial_s(sqlite: Backend) -> None:
    softmax = (
        "network={head='softmax', widths=[2], depth=1}",
        "space={learning_rate=0.005}",
        "training.adjust=true",
        "training.learning_rate=none",
    )
    study = trained(sqlite, trials=1, overrides=softmax)
    with pytest.raises(NothingToExportError, match="how its scores were adjusted"):
        settings(study, None, None)  # the fake training adjusts nothing, as versions before did not record it
    chosen = Settings(0, {"learning_rate": 0.005}, 1, 1, 0.7)
    made = run(study, chosen)
    shares = np.array(made.about["data"]["train"]) / sum(made.about["data"]["train"])
    assert made.model.get_layer("probabilities").shift == pytest.approx(0.7 * np.log(shares))


def test_what_cannot_be_trained(sqlite: Backend) -> None:
    study = make(sqlite, overrides=SMALL)
    with pytest.raises(NothingToExportError, match="no finished trial yet"):
        settings(study, None, None)
    study = trained(sqlite, "other", overrides=SMALL)
    with pytest.raises(NothingToExportError, match="no finished trial 9"):
        settings(study, 9, None)
    with pytest.raises(NothingToExportError, match=r"3 epochs are asked for, .* ends after 2"):
        settings(study, None, 3)


def test_the_command_on_a_folder_of_images(sqlite: Backend, sqlite_url: str, cli: Cli, tmp_path: Path) -> None:
    data = coloured(tmp_path / "data")
    study = trained(sqlite, "cells", trials=1, overrides=own(data))
    at = ("--storage", sqlite_url, "--device", "cpu", "--threads", "2")
    ran = cli("train", "cells", "--epochs", "8", "-o", str(tmp_path / "new" / "cells.keras"), *at)
    about = load_model(tmp_path / "new" / "cells.keras").get_layer("about").about
    assert f"{about['test']['macro_f1']:.4f}" in ran.out
    assert about["test"]["macro_f1"] > 0.9, "three colours"
    assert about["classes"] == sorted(COLOURS)
    assert about["input"] == {"kind": "images", "shape": [8, 8, 3], "values": "uint8, 0 to 255"}
    assert about["data"]["path"] == "data"
    assert about["data"]["sha256"] == study.spec.data.found.digest  # type: ignore[union-attr]
    assert str(tmp_path) not in str(about)
    card = (tmp_path / "new" / "cells.md").read_text(encoding="utf-8")
    assert "| gr\\|een | 24 | 6 | " in card
    assert "Under 20 test images: blå (6), gr\\|een (6), red, dark (6)" in card
    assert str(data) not in card
    assert "affinity-search train cells --trial 0 --epochs 8 -o" in card
    found = cli("predict", str(tmp_path / "new" / "cells.keras"), str(data), "--device", "cpu", "--threads", "2")
    lines = found.out.splitlines()
    assert lines[0] == 'path,class,runner_up,blå,gr|een,"red, dark"'
    assert len(lines) == 91
    assert sum(line.startswith(f'"{data}/red, dark/') and '.png","red, dark"' in line for line in lines) > 25


def test_vectors(sqlite: Backend, sqlite_url: str, cli: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    vectors = (rng.normal(0, 1, (90, 4)) + 5 * labels[:, None]).astype("float32")
    np.savez(tmp_path / "data.npz", features=vectors, labels=labels)
    np.savez(tmp_path / "new.npz", features=vectors[:5])
    trained(sqlite, "vectors", trials=1, overrides=own(tmp_path / "data.npz", "features"))
    at = ("--device", "cpu", "--threads", "2")
    cli("train", "vectors", "--epochs", "8", "-o", str(tmp_path / "v.keras"), "--storage", sqlite_url, *at)
    assert "by vectors of 4 numbers" in (tmp_path / "v.md").read_text(encoding="utf-8")
    lines = cli("predict", str(tmp_path / "v.keras"), str(tmp_path / "new.npz"), *at).out.splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [
        [f"{tmp_path}/new.npz:{row}", str(label)] for row, label in enumerate([0, 1, 2, 0, 1])
    ]
    line = cli("predict", str(tmp_path / "v.keras"), str(tmp_path / "data.npz"), *at, fails=True)
    assert line.code == 0, "labels beside the vectors do no harm"


class TestRefusals:
    def test_before_the_training(
        self, sqlite: Backend, sqlite_url: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        trained(sqlite, trials=1, overrides=SMALL)
        at = ("--storage", sqlite_url)
        ran = cli("train", "tiny", "-o", "model.h5", *at, fails=True)
        assert ran.code == Exit.MISUSE
        assert "NAME.keras" in ran.err.replace("\n", " ")
        (tmp_path / "folder.keras").mkdir()
        assert cli("train", "tiny", "-o", "folder.keras", *at, fails=True).code == Exit.MISUSE
        (tmp_path / "file").touch()
        assert "cannot be written" in cli("train", "tiny", "-o", "file/model.keras", *at, fails=True).refused()
        assert "no study 'none'" in cli("train", "none", *at, fails=True).refused()
        assert "no finished trial 7" in cli("train", "tiny", "--trial", "7", *at, fails=True).refused()

    def test_a_comparison_is_none_study(self, sqlite_url: str, cli: Cli) -> None:
        compare("digits", sqlite_url, heads=["softmax", "affinity"], name="both", trials=1, draws=2, say=lambda _: None)
        line = cli("train", "both", "--storage", sqlite_url, fails=True).refused()
        assert line == "'both' is a comparison; name the search of one contestant: both.softmax, both.affinity"


def test_the_adjustment_is_kept_with_the_trial(sqlite: Backend) -> None:
    """τ of the best epoch, by which `train` adjusts."""
    study = make(sqlite, trials=1)
    by = holder()
    claim = Places.of(study).claim(by)
    assert claim is not None
    attempt = attempt_at(study, claim, by)
    for number, (score, tau) in enumerate([(0.5, 0.3), (0.9, 1.1)]):
        attempt.report(EpochScore(number, 0.5, fake_scores(score), 0.001, adjustment=tau))
    attempt.complete()
    (trial,) = study.refreshed().optuna.get_trials()
    scores = TrialScores.of(trial)
    assert scores is not None
    assert scores.adjustment == 1.1
