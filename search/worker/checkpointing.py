"""An attempt's checkpoint: in memory after every epoch, on disk as often as that costs next to nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affinity_search.search.training.checkpoints import TrainingState

# A write waits for 200 times what the last one took: half a per cent of the time. The first is taken to cost this.
WRITES_SHARE = 200.0
FIRST_COST_S = 0.01


class Checkpointer:
    """Keeps the last finished epoch of one attempt; each trouble with the file is told once, and ends nothing."""

    def __init__(self, path: Path, identity: Mapping[str, Any], say: Callable[[str], None]) -> None:
        """`identity` says whose state it is: only a checkpoint with the same one is taken up."""
        self.path = path
        self._identity = identity
        self._say = say
        self._state: TrainingState | None = None
        self._written = 0  # epochs in the file
        self._due = time.monotonic() + WRITES_SHARE * FIRST_COST_S
        self._writing = threading.Lock()  # the main thread and the one that ends a hanging process
        self._told = False

    def load(self) -> TrainingState | None:
        """The state to go on from; None, if there is none or it cannot be trusted, which is told."""
        from affinity_search.search.training.checkpoints import load
        from affinity_search.search.training.errors import CheckpointError

        try:
            state = load(self.path, self._identity)
        except CheckpointError as error:
            self.refuse(error)
            return None
        self._written = len(state.epochs) if state else 0
        return state

    def refuse(self, error: Exception) -> None:
        """The file cannot be used: the trial starts from its first epoch, and the file is written over."""
        self._written = 0
        self._say(f"the checkpoint {self.path} is not used, as {error}; the trial starts afresh")

    def keep(self, state: TrainingState) -> None:
        """After every epoch; writes the file if it is time."""
        self._state = state
        if time.monotonic() >= self._due:
            self.write()

    def write(self) -> None:
        """Write the last finished epoch, unless the file has it already."""
        from affinity_search.search.training.checkpoints import save
        from affinity_search.search.training.errors import CheckpointError

        with self._writing:
            state = self._state
            if state is None or len(state.epochs) <= self._written:
                return
            began = time.monotonic()
            try:
                save(self.path, state, self._identity)
                self._written = len(state.epochs)
            except CheckpointError as error:
                if not self._told:
                    self._say(str(error))
                self._told = True
            now = time.monotonic()
            self._due = now + WRITES_SHARE * (now - began)
