"""Tables that fit the terminal, and what stands in them."""

import io

import pytest
from making import attempt_at, make, train, worker_for
from rich.console import Console

from affinity_search.search.doctor.study import examine
from affinity_search.search.doctor.view import study_parts
from affinity_search.search.view.snapshot import take
from affinity_search.search.view.tables import Column, Fitted
from affinity_search.search.view.terminal import panel
from affinity_search.storage.database.backend import Backend


def lines(shown: object, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(shown)
    return [line.rstrip() for line in out.getvalue().splitlines()]


TABLE = Fitted(
    [Column("name"), Column("much", rank=2), Column("score", right=True), Column("least", right=True, rank=3)],
    [["a [bold]name", "x" * 40, "0.1234", "123456789"], ["another", "y", "0.5", "1"]],
    "a title",
)


def test_where_there_is_room_everything_stands() -> None:
    title, head, first, second = lines(TABLE, 80)
    assert (title, head.split()) == ("a title", ["name", "much", "score", "least"])
    assert first.split() == ["a", "[bold]name", "x" * 40, "0.1234", "123456789"]
    assert second.index("0.5") + 3 == first.index("0.1234") + 6, "numbers end in one column"


def test_the_least_important_goes_first_and_is_named() -> None:
    shown = lines(TABLE, 35)
    assert shown[1].split() == ["name", "much", "score"]
    assert shown[-1] == "(too narrow for: least)"


@pytest.mark.parametrize("width", [1, 10, 20, 40, 80, 200])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    assert all(len(line) <= width for line in lines(TABLE, width))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_tables_of_a_running_search(sqlite: Backend, width: int) -> None:
    study = make(sqlite)
    train(study, most=1)
    worker = worker_for(study, "a-machine-with-a-long-name.example.org-459851-gpu3")
    claim = worker.places.claim(worker.holder)
    assert claim is not None
    attempt_at(study, claim, worker.holder).record.trial.report(0.25, 0)
    shown = lines(panel(take(study)), width)
    assert all(len(line) <= width for line in shown)
    (head,) = [line for line in shown if "best macro F1" in line and "epoch" in line]
    row = shown[shown.index(head) + 1]
    assert "0.7500" in row
    assert row.index("0.7500") + 6 == head.index("best macro F1") + 13, "the score stands under its head"
    for part in study_parts(examine(study, None, 0.0)):
        head, row, *_ = lines(part, width)
        assert head.split()[0] == "place"
        assert row.split()[0] == "1"
        assert len(head) <= width
