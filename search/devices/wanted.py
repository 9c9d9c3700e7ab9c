"""Which device a process asks for."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Wanted:
    """A process has one device. `memory_mib` is its share of a GPU that several workers use; None is all of it."""

    kind: str = "cpu"
    index: int = 0
    threads: int | None = None
    memory_mib: int | None = None
    strategy: Any = field(default=None, repr=False)
