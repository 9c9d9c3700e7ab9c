"""Finished trials by the thousand, as rows of Optuna's tables and of the places: `add_trial` would take minutes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import Connection, MetaData, Table, insert, select, update

from affinity_search.storage.database.tables import PlaceState, places
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import MADE_BY, SCORES
from affinity_search.storage.trials.sampling import distribution

CHUNK = 1_000
# What hangs on a trial, with the primary key that the database gives.
PARTS = {
    "trial_params": "param_id",
    "trial_values": "trial_value_id",
    "trial_intermediate_values": "trial_intermediate_value_id",
    "trial_user_attributes": "trial_user_attribute_id",
    "trial_system_attributes": "trial_system_attribute_id",
}

PARAMS: dict[str, float | int] = {"lambda": 0.5, "sigma": 50.0, "n_centers": 5}


def fill(study: StoredStudy, count: int, reports: int) -> None:
    """Use up the first `count` places by complete trials at random points.

    One trial is made by Optuna; the others are copies of its rows with other numbers.
    """
    study.optuna.add_trial(_template(study, reports))
    engine = study.backend.engine
    tables = MetaData()
    tables.reflect(engine, only=["trials", *PARTS])
    with engine.begin() as connection:
        _finish_places(connection, study.token, count)
        _copy(connection, tables, count - 1)


def _template(study: StoredStudy, reports: int) -> FrozenTrial:
    space = study.spec.space
    assert space is not None
    scores = {"best_epoch": reports, "epochs": reports, "duration_s": 60.0, "per_class_f1": [0.5] * 10}
    scores |= dict.fromkeys(("macro_f1", "micro_f1", "minority_f1", "majority_f1"), 0.5) | {"support": [40] * 10}
    return create_trial(
        state=TrialState.COMPLETE,
        value=0.5,
        params=PARAMS,
        distributions={name: distribution(parameter) for name, parameter in space.items()},
        user_attrs={MADE_BY: {"place": 0, "attempt": 1, "seed": 1, "worker": "earlier"}, SCORES: scores},
        system_attrs={"completed_rung_0": 0.5, "completed_rung_1": 0.5},  # as the halving pruner leaves them
        intermediate_values={step: 1 - 0.5 * (step + 1) / reports for step in range(reports)},
    )


def _finish_places(connection: Connection, token: str, count: int) -> None:
    mine = (places.c.token == token, places.c.number < count)
    done = {"state": PlaceState.COMPLETE, "attempt": 1, "trial": places.c.number, "value": 0.5, "finished_at": 1.0}
    done |= {"params": json.dumps(PARAMS)}
    connection.execute(update(places).where(*mine).values(**done, claimed_at=0.0, worker="earlier"))


def _copy(connection: Connection, tables: MetaData, count: int) -> None:
    trials = tables.tables["trials"]
    first = connection.execute(select(trials)).one()._asdict()
    parts = {name: [row._asdict() for row in connection.execute(select(tables.tables[name]))] for name in PARTS}
    generator = random.Random(0)
    for begin in range(1, count + 1, CHUNK):
        numbers = range(begin, min(begin + CHUNK, count + 1))
        made = [{key: value for key, value in first.items() if key != "trial_id"} | {"number": n} for n in numbers]
        statement = insert(trials).returning(trials.c.trial_id, trials.c.number)
        ids = {number: id_ for id_, number in connection.execute(statement, made)}
        for name, key in PARTS.items():
            _copy_part(connection, tables.tables[name], key, parts[name], ids, generator)


def _copy_part(
    connection: Connection,
    table: Table,
    key: str,
    rows: list[dict[str, Any]],
    ids: Mapping[int, int],
    generator: random.Random,
) -> None:
    def copies() -> Iterator[dict[str, Any]]:
        for number, trial_id in ids.items():
            for row in rows:
                copy = {name: value for name, value in row.items() if name != key} | {"trial_id": trial_id}
                yield _varied(table.name, copy, number, generator)

    connection.execute(insert(table), list(copies()))


def _varied(table: str, row: dict[str, Any], number: int, generator: random.Random) -> dict[str, Any]:
    """Samplers and pruners find a study of equal trials too easy."""
    if table == "trial_params":
        name = row["param_name"]
        drawn = {"lambda": generator.uniform(0.01, 1), "sigma": 10 ** generator.uniform(0, 3)}
        row["param_value"] = drawn.get(name, generator.randint(1, 10))
    elif table == "trial_values":
        row["value"] = generator.random()
    elif table == "trial_intermediate_values":
        row["intermediate_value"] = generator.random()
    elif row["key"] == MADE_BY:
        row["value_json"] = row["value_json"].replace('"place": 0', f'"place": {number}')
    elif table == "trial_system_attributes":
        row["value_json"] = str(generator.random())
    return row
