"""Pictures of features: where the centres lie among them, what is drawn, and the command on a real training."""

import io
from pathlib import Path

import numpy as np
import pytest
from conftest import Start
from making import trained
from PIL import Image

from affinity_search.search import devices
from affinity_search.studies.data import SOURCES

DEVICE = devices.configure("cpu", 2)

from affinity_search.search.training.data.splits import search_splits
from affinity_search.search.training.fit import Trainer, TrainingConfig
from affinity_search.search.training.networks.building import NetworkConfig
from affinity_search.search.training.networks.features import Features
from affinity_search.search.view.figures.features import animate, draw, in_two_dimensions  # the device comes first
from affinity_search.storage.database.backend import Backend

NAMES = tuple("0123456789")


def some(width: int, epochs: int = 3) -> list[Features]:
    rng = np.random.default_rng(0)
    labels = (np.arange(60) % 10).astype("int32")
    means = rng.normal(0, 3, (10, width))

    def one(epoch: int) -> Features:
        values = (1 + epoch) * means[labels] + rng.normal(0, 0.3, (60, width))
        return Features(values.astype("float32"), labels, np.float32((1 + epoch) * means[:, None]))

    return [one(epoch) for epoch in range(epochs)]


def test_centres_lie_where_the_head_sees_them() -> None:
    """An image is predicted as the class of the centre that is nearest after the batch norm; h = 2, straight lines."""
    train, evaluation = search_splits(SOURCES["digits"], 20, 0.2, "holdout", 0, None)
    network = NetworkConfig((8,), 1, 0.5, "affinity", embedding=2)
    trainer = Trainer(DEVICE, train, evaluation, SOURCES["digits"], network, TrainingConfig(3, 64, 5e-3), max_centers=2)
    trainer.run({"lambda": 0.5, "sigma": 5.0, "n_centers": 2}, seed=1)
    found = trainer.features()
    traced = trainer._features
    trainer.features()
    assert trainer._features is traced, "not traced anew after every epoch"
    assert found.values.shape == (len(evaluation), 2)
    assert found.centers is not None
    assert found.centers.shape == (10, 2, 2)
    norm = trainer._model.get_layer("head_norm")
    # The batch norm stretches each axis by gamma / sqrt(variance): distances are compared as the head does.
    scale = np.array(norm.gamma) / np.sqrt(np.array(norm.moving_variance) + norm.epsilon)
    distances = np.square((found.values[:, None, None] - found.centers[None]) * scale).sum(3).min(2)
    padded = np.resize(trainer._evaluation[0], len(evaluation))
    assert (distances.argmin(1) == trainer._outputs(padded).argmax(1)).mean() > 0.99


def test_wide_features_are_projected_with_their_centres_on_one_plane_for_all_epochs() -> None:
    flat, how = in_two_dimensions(some(16))
    assert "h = 16, two principal components" in how
    for one in flat:
        assert one.values.shape == (60, 2)
        assert one.centers is not None
        for label in range(10):
            mine = one.values[one.labels == label].mean(0)
            assert np.abs(one.centers[label, 0] - mine).max() < 1, "a centre stays among its class"


def test_two_features_are_shown_as_they_are() -> None:
    epochs = some(2)
    flat, how = in_two_dimensions(epochs)
    assert how == "features, h = 2"
    assert (flat[0].values == epochs[0].values).all()


def test_a_picture_an_epoch_and_an_animation(tmp_path: Path) -> None:
    frames = draw(some(2), "digits", [0.1, 0.2, 0.3], NAMES)
    assert len({Image.open(io.BytesIO(frame)).size for frame in frames}) == 1
    animate(frames, tmp_path / "features.gif")
    with Image.open(tmp_path / "features.gif") as gif:
        assert (gif.format, gif.n_frames) == ("GIF", 3)  # type: ignore[attr-defined]


def test_softmax_has_no_centres() -> None:
    assert len(draw([Features(one.values, one.labels, None) for one in some(4)], "digits", [0.1] * 3, NAMES)) == 3


@pytest.mark.long
def test_the_command(sqlite: Backend, sqlite_url: str, start: Start, tmp_path: Path) -> None:
    small = ["training.epochs=2", "network.widths=[2]", "space.n_centers=1"]
    trained(sqlite, trials=1, overrides=small)
    at = ("--device", "cpu", "--threads", "1", "--storage", sqlite_url)
    made = start("embed", "tiny", *at, "--width", "2", "--output", str(tmp_path / "out"), fake=False)
    assert made.ended() == 0, made.said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "epoch-001.png",
        "epoch-002.png",
        "features.gif",
    ]
    refused = start("embed", "tiny", *at, "--trial", "7")
    assert refused.ended() == 1
    assert "error: study 'tiny' has no finished trial 7" in refused.said


@pytest.mark.parametrize("width", ["0", "1"])
def test_one_feature_is_no_picture(width: str, sqlite_url: str, start: Start) -> None:
    refused = start("embed", "tiny", "--width", width, "--storage", sqlite_url)
    assert refused.ended() == 2
