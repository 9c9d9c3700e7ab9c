"""`predict` on files as people have them: odd names, other sizes and colours, files that are no images."""

import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from PIL import Image

from affinity_search.search import devices

DEVICE = devices.configure("cpu", 2)

import keras  # the device comes first

from affinity_search.search.experiments.models import predict as predicting
from affinity_search.search.training.networks.layers import Scale
from affinity_search.search.training.networks.saving import About
from affinity_search.search.worker.exits import Exit

AT = ("--device", "cpu", "--threads", "2")


def model_file(path: Path, channels: int, classes: tuple[str, ...] = ("dark", 'bright, "very"')) -> Path:
    """Its first score falls and its second grows with the mean brightness, 0 to 1: it tells what it is shown."""
    about = {"format": 1, "classes": list(classes), "input": {"kind": "images", "shape": [4, 6, channels]}}
    inputs = keras.Input((4, 6, channels), dtype="uint8")
    means = keras.layers.GlobalAveragePooling2D()(Scale()(inputs))
    dense = keras.layers.Dense(len(classes))
    model = keras.Model(inputs, About(about, name="about")(dense(means)))
    kernel = np.zeros((channels, len(classes)), "float32")
    kernel[:, 0], kernel[:, 1] = -1 / channels, 1 / channels
    dense.set_weights([kernel, np.array([1.0] + [0.0] * (len(classes) - 1), "float32")])
    model.save(path)
    return path


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("model") / "grey.keras", 1)


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("model") / "colour.keras", 3)


def image(path: Path, value: int | tuple[int, ...], size: tuple[int, int] = (9, 7)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if isinstance(value, tuple) else "L", size, value).save(path)
    return path


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


NAMES = ("a,b.png", 'q"uote.png', "ünï côdé.png", "line\nbreak.png", "sub/folder/x.png")


def test_paths_come_out_right(grey: Path, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    for number, name in enumerate(NAMES):
        image(folder / name, 50 * number)
    cli("predict", str(grey), str(folder), "--csv", str(tmp_path / "out.csv"), *AT)
    found = rows((tmp_path / "out.csv").read_text(encoding="utf-8"))
    assert {row["path"] for row in found} == {str(folder / name) for name in NAMES}
    for row in found:
        brightness = 50 * NAMES.index(row["path"].removeprefix(f"{folder}/")) / 255
        assert float(row['bright, "very"']) == pytest.approx(brightness, abs=1e-5)
        assert float(row["dark"]) == pytest.approx(1 - brightness, abs=1e-5)
        expected = ["dark", 'bright, "very"'][:: 1 if brightness < 0.5 else -1]
        assert [row["class"], row["runner_up"]] == expected


def test_files_and_folders_in_the_order_given(grey: Path, cli: Cli, tmp_path: Path) -> None:
    late, early = image(tmp_path / "z.png", 10), image(tmp_path / "folder" / "a.png", 200)
    ran = cli("predict", str(grey), str(late), str(early.parent), *AT)
    assert [row["path"] for row in rows(ran.out)] == [str(late), str(early)]
    assert "2 predicted, 0 left out" in ran.err


def test_images_are_read_as_the_model_was_trained(grey: Path, colour: Path, cli: Cli, tmp_path: Path) -> None:
    """Any size, and grey ones for a model of colours or colours for a model of grey ones."""
    image(tmp_path / "new" / "grey.png", 102, (300, 200))
    image(tmp_path / "new" / "red.png", (255, 0, 0))
    brightness = {
        model: {Path(row["path"]).stem: float(row['bright, "very"']) for row in rows(ran.out)}
        for model in (grey, colour)
        if (ran := cli("predict", str(model), str(tmp_path / "new"), *AT))
    }
    assert brightness[colour] == pytest.approx({"grey": 0.4, "red": 1 / 3}, abs=1e-5)
    assert brightness[grey] == pytest.approx({"grey": 0.4, "red": 76 / 255}, abs=1e-5)


def test_what_cannot_be_read_is_named_and_left_out(grey: Path, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    image(folder / "good.png", 10)
    whole = image(folder / "cut.png", 10, (80, 80)).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "README.txt").write_text("about these images")
    (folder / "gone.png").symlink_to("nowhere.png")
    ran = cli("predict", str(grey), str(folder), *AT)
    assert [Path(row["path"]).name for row in rows(ran.out)] == ["good.png"]
    lost = [line for line in ran.err.splitlines() if line.startswith("left out: ")]
    assert [line.partition(": ")[2].partition(": ")[0] for line in lost] == [f"{folder}/gone.png", f"{folder}/cut.png"]
    assert "1 predicted, 2 left out" in ran.err, "nobody took README.txt for an image"
    named = cli("predict", str(grey), str(folder / "README.txt"), str(folder / "good.png"), *AT)
    assert f"left out: {folder}/README.txt: not a JPEG" in named.err


def test_names_that_are_no_text(grey: Path, cli: Cli, tmp_path: Path) -> None:
    image(tmp_path / "x.png", 10).rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    cli("predict", str(grey), str(tmp_path), "--csv", str(tmp_path / "out.csv"), *AT)
    (row,) = rows((tmp_path / "out.csv").read_text(encoding="utf-8"))
    assert row["path"] == f"{tmp_path}/\\xff.png"


def test_work_is_done_in_parts(grey: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(11):
        image(tmp_path / "new" / f"{number:02}.png", 20 * number)
    read: list[int] = []
    real: Any = predicting.Forward.__call__

    def counted(self: predicting.Forward, values: Any) -> Any:
        read.append(len(values))
        return real(self, values)

    monkeypatch.setattr(predicting.Forward, "__call__", counted)
    monkeypatch.setattr(predicting, "PART_IMAGES", 5)
    found = rows(cli("predict", str(grey), str(tmp_path / "new"), "--batch", "2", *AT).out)
    assert read == [4, 4, 3], "a multiple of the batch"
    assert [float(row['bright, "very"']) for row in found] == pytest.approx([20 * n / 255 for n in range(11)], abs=1e-5)


def test_the_cache_of_images_is_left_alone(
    grey: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFFINITY_SEARCH_CACHE", str(tmp_path / "cache"))
    image(tmp_path / "x.png", 10)
    cli("predict", str(grey), str(tmp_path / "x.png"), *AT)
    assert not (tmp_path / "cache").exists()


class TestRefusals:
    def test_no_model(self, cli: Cli, tmp_path: Path) -> None:
        picture = image(tmp_path / "x.png", 10)
        assert "there is no file" in cli("predict", str(tmp_path / "no.keras"), str(picture), fails=True).refused()
        assert "is no Keras model" in cli("predict", str(picture), str(picture), fails=True).refused()

    def test_a_model_that_train_did_not_write(self, cli: Cli, tmp_path: Path) -> None:
        inputs = keras.Input((2,))
        keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "theirs.keras")
        assert "did not write" in cli("predict", str(tmp_path / "theirs.keras"), str(tmp_path), fails=True).refused()

    def test_no_images(self, grey: Path, cli: Cli, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        line = cli("predict", str(grey), str(empty), *AT, fails=True).refused(Exit.UNFIT_MACHINE)
        assert line == f"there is no file in {empty}; name images, or a folder of them"
        line = cli("predict", str(grey), str(tmp_path / "no"), *AT, fails=True).refused(Exit.UNFIT_MACHINE)
        assert line == f"there is no file or folder {tmp_path}/no; check the path"
        (empty / "text.txt").write_text("text")
        (tmp_path / "out.csv").write_text("kept")
        arguments = ("predict", str(grey), str(empty), "--csv", str(tmp_path / "out.csv"), *AT)
        assert "none of 1 files" in cli(*arguments, fails=True).refused(Exit.UNFIT_MACHINE)
        assert (tmp_path / "out.csv").read_text() == "kept"
        assert {path.name for path in tmp_path.iterdir()} == {"empty", "out.csv"}, "no draft is left"

    def test_where_nothing_can_be_written(self, grey: Path, cli: Cli, tmp_path: Path) -> None:
        picture = image(tmp_path / "x.png", 10)
        at = ("--csv", str(picture / "out.csv"), *AT)
        assert "cannot be written" in cli("predict", str(grey), str(picture), *at, fails=True).refused()
