"""A trial's pictures. The worker keeps the data for them; they are drawn when somebody asks for them.

Drawing can take longer than a trial, and most trials are never looked at. So a worker writes a small file when an
attempt ends, and the dashboard's artifact store draws from it.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial

from affinity_search.search.training.data.profiles import EARLIEST, Wish
from affinity_search.search.training.results import EpochScore, best_epochs
from affinity_search.search.view.figures.trial import FILES
from affinity_search.storage.files import StudyFiles
from affinity_search.storage.trials.artifacts import RECORD_PREFIX, LazyFolder, artifacts_folder
from affinity_search.studies.heads import AFFINITY, HEADS, SOFTMAX
from affinity_search.studies.metrics import DEFAULT, METRICS
from affinity_search.studies.model.spec import StudySpec

ARTIFACT_ID = re.compile(r"(?P<token>[0-9a-f]{32})-(?P<key>[0-9a-f]{16})-(?P<number>\d+)")


def pictures_of(spec: StudySpec) -> Sequence[str]:
    """The file names of the pictures of each trial. Not every head has diagnostics to draw."""
    return FILES if spec.head.diagnostics else FILES[:-1]


def new_key() -> str:
    """A random key that names an attempt's files: its trial has no number yet."""
    return secrets.token_hex(8)


@dataclass(frozen=True)
class History:
    """What a trial's pictures show. By class: the training images (`class_sizes`), and whether it is small
    (`minority`).
    """

    title: str
    protocol: str
    class_sizes: tuple[int, ...]
    epochs: tuple[EpochScore, ...]
    class_names: tuple[str, ...] = ()
    minority: tuple[bool, ...] = ()
    metric: str = DEFAULT
    head: str = AFFINITY.name

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON. Only the confusion matrix of each training's best epoch is drawn, so only that is kept."""
        best = {epoch.epoch for epoch in best_epochs(self.epochs, self.metric)}
        epochs = [epoch.to_dict() for epoch in self.epochs]
        for epoch in epochs:
            if epoch["epoch"] not in best:
                epoch["scores"]["confusion"] = []
        return vars(self) | {"epochs": epochs}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> History:
        """Reads what `to_dict` wrote. Raises KeyError or TypeError for anything else."""
        epochs = tuple(EpochScore.from_dict(epoch) for epoch in plain["epochs"])
        sizes, names = tuple(plain["class_sizes"]), tuple(plain.get("class_names", ()))
        # Earlier versions stored no minority mask; there was one profile.
        minority = plain["minority"] if "minority" in plain else EARLIEST(sizes, Wish(0)).minority
        # They stored no head either: there were two, and one of them had diagnostics.
        old = AFFINITY if epochs and epochs[0].diagnostics else SOFTMAX
        about = tuple(minority), plain.get("metric", DEFAULT), plain.get("head", old.name)
        return cls(plain["title"], plain["protocol"], sizes, epochs, names, *about)

    def draw(self) -> dict[str, bytes]:
        """PNG files by name."""
        from affinity_search.search.view.figures import trial

        return trial.draw(
            self.title,
            self.protocol,
            self.epochs,
            self.class_sizes,
            self.class_names,
            self.minority,
            METRICS[self.metric],
            HEADS[self.head],
        )


class Album:
    """Keeps the histories of one worker's attempts. A failure to write one is told once and ends nothing."""

    def __init__(
        self,
        files: StudyFiles,
        class_sizes: Sequence[int],
        say: Callable[[str], None],
        class_names: Sequence[str] = (),
        minority: Sequence[bool] = (),
        metric: str = DEFAULT,
        head: str = AFFINITY.name,
    ) -> None:
        self._files = files
        self._class_sizes = tuple(class_sizes)
        self._class_names = tuple(class_names)
        self._minority = tuple(minority)
        self._metric = metric
        self._head = head
        self._say = say
        self._told = False

    def keep(self, key: str, title: str, protocol: str, epochs: Sequence[EpochScore]) -> None:
        """Write the file from which the attempt's pictures will be drawn. Writes nothing before the first epoch."""
        if not epochs:
            return
        path = self._files.history(key)
        try:
            about = self._class_names, self._minority, self._metric, self._head
            content = json.dumps(History(title, protocol, self._class_sizes, tuple(epochs), *about).to_dict())
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(content.encode(), compresslevel=1))
        except OSError as error:
            if not self._told:
                self._say(
                    f"{title} will have no pictures: {path} cannot be written ({error.strerror}); this is told once"
                )
            self._told = True


class PictureStore(LazyFolder):
    """The artifacts under `root` (--files). A picture is drawn when it is first read."""

    def __init__(self, root: Path) -> None:
        super().__init__(artifacts_folder(root))
        self._root = root

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The file's bytes.

        Raises:
            ArtifactNotFound: there is no such file, and the id is no picture of ours.
        """
        try:
            return super().open_reader(artifact_id)
        except ArtifactNotFound:
            asked = ARTIFACT_ID.fullmatch(artifact_id)
            if asked is None:
                raise
            return io.BytesIO(self._drawn(asked["token"], asked["key"], int(asked["number"])))

    def remove(self, artifact_id: str) -> None:
        """Remove the file, if it was drawn, and the data to draw it from."""
        asked = ARTIFACT_ID.fullmatch(artifact_id)
        if asked is None:
            super().remove(artifact_id)
            return
        with contextlib.suppress(ArtifactNotFound):
            super().remove(artifact_id)
        StudyFiles(self._root, asked["token"]).history(asked["key"]).unlink(missing_ok=True)

    def _drawn(self, token: str, key: str, number: int) -> bytes:
        history = _read(StudyFiles(self._root, token).history(key))
        if history is None:
            return _blank(
                "the picture is drawn after the trial's end; if it has ended, its history is not in this --files folder"
            )
        pictures = list(history.draw().values())
        for each, content in enumerate(pictures):
            with contextlib.suppress(OSError):  # a read-only folder: it is drawn again next time
                self.write(f"{token}-{key}-{each}", io.BytesIO(content))
        return pictures[number] if number < len(pictures) else _blank("this trial has no such picture")


def history_of(files: StudyFiles, trial: FrozenTrial) -> History | None:
    """The stored history of the trial's epochs. None if the trial runs, or if another --files folder has it."""
    for name in trial.system_attrs:
        asked = ARTIFACT_ID.fullmatch(name.removeprefix(RECORD_PREFIX))
        if asked is not None:
            return _read(files.history(asked["key"]))
    return None


def _read(path: Path) -> History | None:
    """None if there is no file, or only half of one."""
    try:
        return History.from_dict(json.loads(gzip.decompress(path.read_bytes())))
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def _blank(text: str) -> bytes:
    from affinity_search.search.view.figures.canvas import message

    return message(text)
