"""How `make claim-bench` makes out a trial's start, which ends within the first call that trains."""

import pytest

from benchmarks.claim import Start


def test_what_the_first_step_took_beyond_a_later_one_belongs_to_the_start() -> None:
    traced = Start(10.0, traces=0, calls=[(11.0, 15.0, 1), (15.0, 16.0, 1), (16.0, 17.5, 3)])
    assert traced.traced_s == pytest.approx(1.0 + 4.0 - 0.5)
    assert traced.begun_s == pytest.approx(1.0)


def test_a_first_step_that_was_no_slower_adds_nothing() -> None:
    warm = Start(10.0, traces=0, calls=[(10.1, 10.5, 1), (10.5, 11.5, 2)])
    assert warm.traced_s == warm.begun_s == pytest.approx(0.1)
