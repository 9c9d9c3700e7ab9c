"""What a launch is asked for. Light to import: a worker may begin ahead of the study (`search/launch/ahead.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from affinity_search.search.devices.slots import Slot, plan

if TYPE_CHECKING:
    from affinity_search.search.launch.tracking.addresses import Sending

Say = Callable[[str], None]


@dataclass(frozen=True)
class Launching:
    """What is asked for; the fields are explained at `Study.launch`."""

    workers: int | None
    devices: str
    per_device: int
    tpus: tuple[str, ...]
    on: str | None
    data_dir: Path | None
    files: Path | None
    lease_s: float
    outage_s: float
    tpu_strategy: bool = False
    sending: Sending | None = None

    def slots(self, say: Say) -> list[Slot]:
        """Where workers will run on this machine; none for a cluster, which plans its own.

        Raises:
            DeviceError, NoSuchDeviceError: this machine lacks a device that was asked for.
        """
        if self.on:
            return []
        return plan(
            self.devices,
            self.workers,
            per_device=self.per_device,
            tpus=self.tpus,
            tpu_strategy=self.tpu_strategy,
            say=say,
        )
