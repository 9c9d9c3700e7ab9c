"""With a hundred classes pictures and notes stay readable, and say what they leave out."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from data_files import write_cifar
from drawn import epochs
from making import attempt_at, holder, make
from matplotlib.backends.backend_agg import FigureCanvasAgg

from affinity_search.search.training.networks.features import Features
from affinity_search.search.view.figures import affinity, features
from affinity_search.search.view.figures import trial as drawing
from affinity_search.search.view.notes import trial_note
from affinity_search.search.view.standing import standing_of
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.places.claims import Places
from affinity_search.studies.data import SOURCES

NAMES = SOURCES["cifar100"].classes
SMALL = (True, False) * 50
ON_CIFAR100 = ("data={set='cifar100',minority=10,validation=0.2}", "network.widths=[2,2]")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are the figures themselves."""
    for module in (drawing, affinity, features):
        monkeypatch.setattr(module, "png", lambda figure: figure)


def shown(figure: Any) -> list[str]:
    """All texts that are seen, after a check that the layout found room."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FigureCanvasAgg(figure).draw()
    for legend in filter(None, (ax.get_legend() for ax in figure.axes)):
        box = legend.get_window_extent()
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.height
    texts = [text for ax in figure.axes for text in ax.findobj(lambda one: hasattr(one, "get_text"))]
    return [text.get_text() for text in texts if text.get_text()]


@pytest.mark.usefixtures("figures")
def test_a_trial_s_pictures_show_numbers() -> None:
    drawn: dict[str, Any] = dict(drawing.draw("trial 1", "holdout", epochs(classes=100), (50, 500) * 50, NAMES, SMALL))
    texts = {name: shown(figure) for name, figure in drawn.items()}
    assert not {"apple", "worm"} & {text for each in texts.values() for text in each}
    assert all(len(each) < 150 for each in texts.values()), "no number in each of ten thousand cells"
    assert {"true class (100, by number)", "predicted class (100, by number)"} <= set(texts["confusion-matrix.png"])
    assert "class (100, by number)" in texts["loss-diagnostics.png"]
    assert any("100 classes, too many for their names" in text for text in texts["f1-by-class-size.png"])


@pytest.mark.usefixtures("figures")
def test_features_tell_small_from_large() -> None:
    random, labels = np.random.default_rng(0), np.repeat(np.arange(100, dtype=np.int32), 5)
    points = random.normal(size=(500, 2)).astype("float32"), random.normal(size=(100, 1, 2)).astype("float32")
    (figure,) = features.draw([Features(points[0], labels, points[1])], "trial 1", [0.5], NAMES, SMALL)
    texts = shown(figure)
    assert {"minority", "majority"} <= set(texts)
    assert len(texts) < 60, "no legend of a hundred classes"
    assert "100 classes share ten colours" in figure._suptitle.get_text()  # type: ignore[attr-defined]


def test_a_note_has_the_worst_classes(sqlite: Backend) -> None:
    study = make(sqlite, overrides=ON_CIFAR100)
    claim = Places.of(study).claim(holding := holder())
    assert claim is not None
    attempt = attempt_at(study, claim, holding, keras="3")
    attempt.report(epochs(n=1, classes=100)[0])
    attempt.complete()
    trials = study.optuna.trials
    note = trial_note(standing_of(study, trials), trials[0])
    assert "Of 100 classes the 10 with the lowest F1:\n\n| class |" in note
    worst = [f"| {NAMES[number]} | minority | 8 | 0.0000 |" for number in range(0, 100, 10)]
    assert [line for line in note.splitlines() if "ority | 8 |" in line] == worst


def test_few_images_are_told_in_one_line(cli: Cli, tmp_path: Path) -> None:
    write_cifar(tmp_path, n=1000, of="cifar100")
    write_cifar(tmp_path, ["test"], n=1000, of="cifar100")
    changes = ("data={set='cifar100',minority=2,validation=0.4}", "network={widths=[2]}")
    options = [part for change in changes for part in ("--set", change)]
    ran = cli("studies", "show", "digits", *options, "--data-dir", str(tmp_path))
    assert "fewer than 20 validation images of 100 of 100 classes. Their F1" in " ".join((ran.out + ran.err).split())
