"""The result of one check of the doctor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """The result of one check. `next` is what to do; None if all is well, or if `found` says it."""

    name: str
    status: Status
    found: str
    next: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.status:<7}  {self.name}: {self.found}" + (f"; {self.next}" if self.next else "")
