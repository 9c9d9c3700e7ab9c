"""Ticks that are easy to read. The libraries would write 3×10¹, or 2 and 5 without their power of ten."""

from __future__ import annotations

import math


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a log axis, from one below `low` to one above `high`: powers of ten, or 1, 2 and 5."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) < 4 else (1,)
    return [float(f"{step}e{power}") for power in powers for step in steps]
