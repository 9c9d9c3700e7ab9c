"""The cases as a list, and what came of them as Markdown."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import psycopg
from commands import machine
from postgres_server import Server, Unavailable

from optuna_compare.lab import Outcome, Room

MARKS = {True: "✓", False: "✗", None: "–"}


@dataclass(frozen=True)
class Case:
    """One complaint: `title` says what is done and wanted; `run` measures one side."""

    title: str
    database: str
    run: Callable[[Room], Outcome]


@dataclass(frozen=True)
class Row:
    case: Case
    outcomes: Sequence[Outcome]  # plain Optuna's, then ours


def measure(case: Case, room: Room, say: Callable[[str], None]) -> Outcome:
    """Run the case on one side; one that breaks is listed as such and hides no other."""
    since = time.monotonic()
    room.folder.mkdir()
    try:
        outcome = case.run(room)
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        outcome = Outcome(None, f"could not be run: {type(error).__name__}: {reason[0][:150]}")
    took = f"{time.monotonic() - since:.0f} s"
    say(f"{MARKS[outcome.passed]} {case.title} ({case.database}), {room.side.name}: {outcome.text} [{took}]")
    return outcome


def markdown(rows: Sequence[Row]) -> str:
    lines = [f"| case | database | plain Optuna {version('optuna')} | affinity-search |", "|---|---|---|---|"]
    for row in rows:
        cells = [f"{MARKS[outcome.passed]} {outcome.text}".replace("|", "/") for outcome in row.outcomes]
        lines.append("| " + " | ".join([row.case.title, row.case.database, *cells]) + " |")
    passed = [sum(row.outcomes[side].passed is True for row in rows) for side in (0, 1)]
    lines.append(f"| **passed** | | {passed[0]} of {len(rows)} | {passed[1]} of {len(rows)} |")
    return "\n".join(lines)


def foot(server: Server | Unavailable, took_s: float) -> str:
    """Machine and versions."""
    databases = f"SQLAlchemy {version('sqlalchemy')}, SQLite {sqlite3.sqlite_version}"
    if isinstance(server, Server):
        with psycopg.connect(server.url("postgres")) as connection:
            databases += f", PostgreSQL {connection.info.parameter_status('server_version')}"
    return f"{machine()}, {databases}; {took_s / 60:.1f} minutes."
