"""Hearing of `affinity-search stop`, which only leaves a mark in the database."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from search.signals import StopSignals
from storage.study import StoredStudy
from storage.tables import Stop


class StopListener:
    """Called with the study as the database has it now; tells the signals, and the person why, once."""

    def __init__(self, signals: StopSignals, say: Callable[[str], None]) -> None:
        self._signals = signals
        self._say = say
        self._heard: Stop | None = None

    def __call__(self, study: StoredStudy) -> None:
        if study.stopped is None or study.stopped == self._heard:
            return
        self._heard = study.stopped
        self._say(stopped_text(study.under_its_name()))
        self._signals.stop_from_elsewhere(now=study.stopped == Stop.NOW)


def stopped_text(study: StoredStudy) -> str:
    """What it means, and how to go on."""
    running = "running ones are given back" if study.stopped == Stop.NOW else "running ones finish"
    return (
        f"study {study.name!r} was stopped by `affinity-search stop`: no new trials, {running}; "
        f"to go on: affinity-search launch {shlex.quote(study.name)}"
    )
