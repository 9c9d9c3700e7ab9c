"""The cost of a head's step: ratios within a round, and how sure they are."""

import numpy as np
import pytest

from benchmarks.heads.steps import BASELINE, markdown, measured, ratio


def test_a_ratio_is_within_a_round_so_slow_rounds_fall_out() -> None:
    machine = np.random.default_rng(0).uniform(1, 10, 30)
    assert ratio(1.25 * machine, machine) == pytest.approx((1.25, 1.25, 1.25))


def test_the_interval_narrows_with_more_rounds() -> None:
    random = np.random.default_rng(1)
    widths = []
    for rounds in (10, 1000):
        middle, low, high = ratio(random.normal(1.0, 0.05, rounds), np.ones(rounds))
        assert low <= middle <= high
        widths.append(high - low)
    assert 0 < widths[1] < widths[0] / 3


def test_every_head_takes_one_step_a_round() -> None:
    clock, told = iter(range(100)), []
    steps = {name: lambda name=name: told.append(name) for name in (BASELINE, "other", "third")}
    seconds = measured(steps, 5, lambda: float(next(clock)))
    assert [sorted(told[at : at + 3]) for at in range(0, 15, 3)] == [sorted(steps)] * 5
    assert len({tuple(told[at : at + 3]) for at in range(0, 15, 3)}) > 1, "in another order"
    assert all((spent == 1).all() for spent in seconds.values())


def test_the_table_has_a_line_for_each_head_but_the_one_compared_to() -> None:
    lines = markdown({BASELINE: np.full(4, 2.0), "ldam": np.full(4, 2.1)}).splitlines()
    assert lines[2:] == ["| `ldam` | 2.100 | 1.050 | 1.050 to 1.050 |"]
