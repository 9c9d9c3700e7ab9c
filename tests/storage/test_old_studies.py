"""Studies that 0.1.0 stored open, go on and export: a search of the digits with five complete trials, one pruned."""

import gzip
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import jsonschema
import psycopg
import pytest
from conftest import Cli
from making import open_study, train
from postgres_server import Server

from affinity_search.search.view.publishing import Reporter
from affinity_search.search.view.snapshot import take
from affinity_search.storage.database.backend import Backend, open_backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.places.claims import Places
from affinity_search.storage.results.export import best_trials, schema_text
from affinity_search.storage.study import StoredStudy, load_study

OLD = Path(__file__).parent / "old"
MACRO_F1 = 0.7931458096148178  # as 0.1.0 exported it
TESTED = [0.9016606722899627, 0.6608715243401002]
EPOCH = 3  # 0.1.0 called it 2


def dump(name: str) -> str:
    return gzip.decompress((OLD / f"0.1.0-{name}.sql.gz").read_bytes()).decode()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[str]:
    if request.param == "sqlite":
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
            connection.executescript(dump("sqlite"))
        yield sqlite_url
        return
    server: Server = request.getfixturevalue("postgres")
    name = server.fresh_database()
    with psycopg.connect(server.url(name).replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(dump("postgresql").encode())
    yield server.url(name)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def backend(url: str) -> Iterator[Backend]:
    opened = open_backend(url, create=True)
    yield opened
    opened.close()


@pytest.fixture
def study(backend: Backend) -> StoredStudy:
    return load_study(backend, "old")


def test_it_opens_and_its_pruned_trial_stays_out_of_the_best(study: StoredStudy) -> None:
    assert [row.state for row in Places.of(study).rows()].count(PlaceState.PRUNED) == 1
    found = best_trials(study, top=6)
    assert len(found) == 5
    best = take(study).best
    assert best is not None
    assert (best.trial, best.macro_f1, best.epoch, best.state) == (4, MACRO_F1, EPOCH, "complete")


def test_it_exports_with_epochs_from_one(study: StoredStudy, url: str, cli: Cli) -> None:
    found = json.loads(cli("export", "old", "--storage", url).out)
    jsonschema.validate(found, json.loads(schema_text()))
    assert (found["macro_f1"], found["epoch"], found["epochs"], found["state"]) == (MACRO_F1, EPOCH, 4, "complete")
    assert (found["test"]["macro_f1"], found["test"]["epochs"]) == (TESTED, [4, 4])
    assert found["versions"]["affinity-search"] == "0.1.0"


def test_it_is_shown(study: StoredStudy, url: str, cli: Cli) -> None:
    shown = cli("status", "old", "--storage", url)
    assert "0.7931" in shown.out + shown.err
    assert Reporter(study).write()


def test_its_finished_trials_can_be_sent(url: str, cli: Cli, tmp_path: Path) -> None:
    """`track` brings the tables up to date by itself; six trials, and the study."""
    assert "7 runs sent to MLflow" in cli("track", "old", "--to", f"mlflow={tmp_path}/runs", "--storage", url).err
    assert cli("track", "old", "--to", f"mlflow={tmp_path}/runs", "--storage", url).err == "nothing is missing\n"


def test_it_goes_on(study: StoredStudy, backend: Backend) -> None:
    longer, _ = open_study(backend, "old", trials=9)
    assert train(longer) == 3
    counts = Places.of(longer).counts()
    assert (counts.used, counts.failed) == (9, 0)
    found = best_trials(longer, top=9)
    assert {one.trial.number for one in found} >= {6, 7, 8}, "new trials and old ones on one list"
    assert [one.place.value for one in found] == sorted(one.place.value for one in found)
