"""How the results of `affinity-search doctor` look in a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from affinity_search.search.doctor.check import Check
from affinity_search.search.doctor.study import Diagnosis, Held, Spent
from affinity_search.search.view.tables import Column, Fitted
from affinity_search.search.view.terminal import duration_text, plural

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}
MOST_SPENT = 10
UNFOLDED = 1000


def show(out: Console, part: Check | RenderableType) -> None:
    """Print a check or another part of the results. A terminal gets wrapped lines, a file or pipe whole lines."""
    if isinstance(part, Check):
        part = _hanging(part) if out.is_terminal else Text(str(part))
    out.print(part, width=None if out.is_terminal else UNFOLDED)


def _hanging(check: Check) -> Table:
    """A line with its later rows under its text, not under its status."""
    grid = Table.grid(padding=(0, 2))
    _, _, text = str(check).partition(check.status)
    grid.add_row(Text(check.status.ljust(7), STYLES[check.status]), Text(text.strip()))
    return grid


def study_checks(diagnosis: Diagnosis) -> Iterator[Check]:
    """What the diagnosis means, in the words of the other checks."""
    yield _places(diagnosis)
    if diagnosis.ails:
        yield _lost(diagnosis)
    if diagnosis.gone:
        leases = max(one.lease_s - one.renewed_s for one in diagnosis.gone)
        found = f"{plural(len(diagnosis.gone), 'place')} held by dead processes of this host"
        advice = f"running workers take over when the lease ends, in {duration_text(max(0.0, leases))}; or: --repair"
        yield Check("gone", "warning", found, advice)
    if diagnosis.spent:
        found = f"{plural(len(diagnosis.spent), 'place')} used up without a value"
        yield Check(
            "failures",
            "warning",
            found,
            "see the reasons below; launch with --set max_attempts=N to give later places more attempts",
        )
    if diagnosis.leftovers:
        found = f"{plural(len(diagnosis.leftovers), 'checkpoint file')} of used places left behind"
        yield Check("leftovers", "warning", found, "they only take room; --repair removes them")


def _places(diagnosis: Diagnosis) -> Check:
    counts, alive = diagnosis.counts, [one for one in diagnosis.held if one.state == "alive" and not one.gone]
    found = f"{counts.used} of {counts.total} used, {counts.free} free, {counts.running} held"
    found += f", {counts.closed} closed" if counts.closed else ""
    launch = f"affinity-search launch {shlex.quote(diagnosis.study)}"
    if counts.used == counts.total:
        return Check("places", "ok", f"{found}: the search is over; {launch} --trials N adds places")
    if alive:
        return Check("places", "ok", f"{found}, {len(alive)} of them by running workers")
    whom = ", but no worker runs" if counts.running else ", no worker runs"
    return Check("places", "warning", found + whom, f"start workers: {launch}")


def _lost(diagnosis: Diagnosis) -> Check:
    parts = []
    if diagnosis.lost:
        parts.append(f"{plural(len(diagnosis.lost), 'place')} of silent workers")
    if diagnosis.halves:
        parts.append(f"{plural(len(diagnosis.halves), 'trial')} that nobody ended")
    return Check(
        "lost", "warning", ", ".join(parts), "a running worker or a new launch repairs this; without them: --repair"
    )


def study_parts(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    """The held places, what recovery would do, and why places failed."""
    if diagnosis.held:
        yield _held_table(diagnosis.held)
    for one in diagnosis.held:
        if one.recovery:
            yield Text(f"place {one.place}: {_why(one)}; recovery would {one.recovery}")
    for half in diagnosis.halves:
        where = "" if half.place is None else f" (place {half.place})"
        yield Text(f"trial {half.trial}{where} is RUNNING without a worker; recovery would {half.recovery}")
    if diagnosis.spent:
        yield _spent_table(diagnosis.spent[:MOST_SPENT])
    if len(diagnosis.spent) > MOST_SPENT:
        yield Text(f"and {len(diagnosis.spent) - MOST_SPENT} more places; --json lists all")


def _why(one: Held) -> str:
    silent = f"its worker was silent for {duration_text(one.renewed_s)}, and its lease is over"
    gone = f"process {one.pid} is gone"
    if one.state == "alive":
        return f"{gone}, its lease ends in {duration_text(max(0.0, one.lease_s - one.renewed_s))}"
    return f"{gone}, {silent}" if one.gone else silent


def _held_table(held: tuple[Held, ...]) -> Fitted:
    columns = [Column("place", right=True), Column("attempt", right=True, rank=5), Column("trial", right=True, rank=2)]
    columns += [Column("worker", rank=1), Column("host", rank=4), Column("pid", right=True, rank=3)]
    columns += [Column("device", rank=6), Column("renewed", right=True, rank=1), Column("state")]
    rows = [
        (
            str(one.place),
            str(one.attempt),
            "-" if one.trial is None else str(one.trial),
            one.worker,
            one.host,
            str(one.pid),
            one.device,
            f"{duration_text(one.renewed_s)} ago",
            Text(one.state, style="green" if one.state == "alive" else "bold red"),
        )
        for one in held
    ]
    return Fitted(columns, rows)


def _spent_table(spent: tuple[Spent, ...]) -> Fitted:
    columns = [Column("place", right=True), Column("attempt", right=True, rank=2), Column("trial", right=True, rank=1)]
    columns += [Column("ended", rank=3), Column("worker", rank=4), Column("reason")]
    rows = []
    for place in spent:
        for one in place.attempts:
            attempt = "-" if one.attempt is None else str(one.attempt)
            rows.append((str(place.place), attempt, str(one.trial), one.ended, one.worker, one.reason))
        if not place.attempts:
            rows.append((str(place.place), "-", "-", "-", "-", place.reason))
    return Fitted(columns, rows)
