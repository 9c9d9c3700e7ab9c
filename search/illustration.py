"""A trial's pictures, made and put beside it before it ends. They are worth no trial: what fails is told, once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from search.view import params_text
from storage.artifacts import artifact_store_for, upload
from storage.files import StudyFiles

if TYPE_CHECKING:
    from search.attempt import Attempt
    from search.record import TrialRecord
    from search.training.results import EpochScore


class Illustrator:
    """Of one worker's trials."""

    def __init__(self, files: StudyFiles, class_sizes: Sequence[int], say: Callable[[str], None]) -> None:
        """`class_sizes`: training images of each class."""
        self._store = artifact_store_for(files.root)
        self._token = files.token
        self._class_sizes = class_sizes
        self._say = say
        self._told = False

    def prepare(self) -> None:
        """Import what draws."""
        with contextlib.suppress(ImportError):  # `illustrate` tells
            import search.figures.trial  # noqa: F401

    def illustrate(self, attempt: Attempt) -> None:
        """Draw the attempt's epochs and upload the pictures to its trial, which must not be over."""
        try:
            pictures = self._draw(attempt, attempt.epochs) if attempt.epochs else {}
            self._upload(attempt.record, attempt.claim.number, pictures)
        except Exception as error:
            if not self._told:
                self._say(f"trial {attempt.number} has no pictures ({error}); this is told once")
            self._told = True

    def _draw(self, attempt: Attempt, epochs: Sequence[EpochScore]) -> dict[str, bytes]:
        from search.figures import trial

        title = f"trial {attempt.number}: {params_text(attempt.params)}"
        return trial.draw(title, attempt.study.spec.protocol, epochs, self._class_sizes)

    def _upload(self, record: TrialRecord, place: int, pictures: dict[str, bytes]) -> None:
        for number, (name, content) in enumerate(pictures.items()):  # the dashboard shows them by their ids
            upload(self._store, record.storage, record.id, f"{self._token}-{place}-{number}", name, content)
