"""An attempt's checkpoint. It is in memory after every epoch, and written to disk so seldom that it costs almost
nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affinity_search.search.training.checkpoints import TrainingState

# After a write the next one waits 200 times as long as it took. So writes take half a per cent of the time. The first
# one is assumed to take FIRST_COST_S.
WRITES_SHARE = 200.0
FIRST_COST_S = 0.01


class Checkpointer:
    """Keeps the last finished epoch of one attempt. Trouble with the file is told once and ends nothing."""

    def __init__(self, path: Path, identity: Mapping[str, Any], say: Callable[[str], None]) -> None:
        """`identity` says whose state it is. Only a checkpoint with the same identity is used."""
        self.path = path
        self._identity = identity
        self._say = say
        self._state: TrainingState | None = None
        self._written = 0  # epochs in the file
        self._due = time.monotonic() + WRITES_SHARE * FIRST_COST_S
        self._writing = threading.Lock()  # the main thread and the one that ends a hanging process
        self._told = False

    def load(self) -> TrainingState | None:
        """The state to go on from. None if there is none, or if it cannot be trusted; that is told."""
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
        """Tell that the file cannot be used. The trial starts from its first epoch and overwrites the file."""
        self._written = 0
        self._say(f"the checkpoint {self.path} is not used: {error}; the trial starts from its first epoch")

    def keep(self, state: TrainingState) -> None:
        """Call it after every epoch. Writes the file if it is time."""
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
