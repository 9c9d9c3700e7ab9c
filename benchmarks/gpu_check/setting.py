"""What every part of the check is told, what it answers, and the sizes of its trainings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from affinity_search.search.devices.slots import Slot, plan


@dataclass(frozen=True)
class Setting:
    """The device, the data, and whether the sizes are those for trying the check out on a CPU."""

    device: str = "gpu:0"
    data_dir: Path | None = None
    quick: bool = False

    @property
    def is_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def slot(self) -> Slot:
        """As a launcher would give it to a worker. Raises NoSuchDeviceError if it is not there."""
        return plan(self.device, None)[0]

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that trains there and is not a launcher's."""
        return os.environ | self.slot.environment

    def workers(self, number: int) -> list[str]:
        """The launcher's options for so many workers on the device."""
        return ["--devices", self.device, "--workers-per-device" if self.is_gpu else "--workers", str(number)]

    @property
    def study(self) -> str:
        """A bundled study: CIFAR-10, or what needs no data to try the check out."""
        return "digits" if self.quick else "cifar10"

    @property
    def data(self) -> list[str]:
        """The launcher's option for it; the digits have none."""
        return ["--data-dir", str(self.data_dir)] if self.data_dir and not self.quick else []


@dataclass(frozen=True)
class Result:
    """A part's answer: whether all was as it should be, one line for people, and its figures."""

    ok: bool
    line: str
    figures: dict[str, Any] = field(default_factory=dict)


def overrides(settings: Sequence[str]) -> list[str]:
    """Options of `launch`."""
    return [word for setting in settings for word in ("--set", setting)]
