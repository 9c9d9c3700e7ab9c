"""The result of looking at one thing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """One thing looked at. `next` is what to do about it; None if all is well, or if `found` says it."""

    name: str
    status: Status
    found: str
    next: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.status:<7}  {self.name}: {self.found}" + (f"; {self.next}" if self.next else "")
