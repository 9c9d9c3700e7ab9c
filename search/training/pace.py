"""How many training steps go into one call: about a second's worth, as a request to stop is heard between calls."""

CALL_S = 1.0
GROWTH = 8  # at most so many times as many steps as in the call before


class Pace:
    """Learns from each call how long a step takes."""

    def __init__(self) -> None:
        self._steps = 1  # the first call compiles, too, and says little

    def steps(self, left: int) -> int:
        """For the next call, of `left` that are still to be made."""
        return min(self._steps, left)

    def learn(self, steps: int, took_s: float) -> None:
        """A call of so many steps took so long."""
        in_time = int(CALL_S * steps / max(took_s, 1e-9))
        self._steps = max(1, min(in_time, GROWTH * steps))
