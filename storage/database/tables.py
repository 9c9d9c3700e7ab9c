"""Our tables beside Optuna's, in the same database.

The key of rows is the study's random token, never Optuna's study id. SQLite uses ids again after a deletion, and a
later study must not find the rows of a deleted one.
"""

from enum import StrEnum

from sqlalchemy import Column, Float, Index, Integer, MetaData, String, Table, Text

# 2: places.cause; 3: studies.stopped, data_dir, train_data, test_data; 4: places.draw, source, studies.search,
# comparison, contestant, and the comparisons; 5: deliveries
SCHEMA_VERSION = 5

metadata = MetaData()


CAUSE_LENGTH = 200


class Cause(StrEnum):
    """Why an attempt ended without a value. For an unexpected error the cause is its type and message."""

    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out of memory"
    PREEMPTED = "preempted"  # on request: not a failure, and not counted
    LOST = "lost"  # its worker fell silent
    DIED = "worker died"  # its launcher saw that the worker's process ended


class Stop(StrEnum):
    """How a study was stopped."""

    DRAIN = "drain"  # no new trials, the running ones finish
    NOW = "now"  # the running ones are given back too


class PlaceState(StrEnum):
    """What has become of one place of a study's budget."""

    FREE = "free"  # nobody holds it
    HELD = "held"  # a worker trains it
    COMPLETE = "complete"  # its trial ended with a value
    PRUNED = "pruned"  # its trial was stopped by the pruner
    SPENT = "spent"  # used up without a value: a NaN, or its attempts are exhausted
    CLOSED = "closed"  # nobody will train it: the search was flat (`[stop]`), until somebody asks for more trials


SCORED = (PlaceState.COMPLETE, PlaceState.PRUNED)
USED = (*SCORED, PlaceState.SPENT)

schema = Table("affinity_schema", metadata, Column("version", Integer, primary_key=True))

studies = Table(
    "affinity_studies",
    metadata,
    Column("token", String(32), primary_key=True),
    Column("definition", Text, nullable=False),  # StudySpec.to_dict() as JSON
    Column("precision", String(32)),  # settled by the first worker; null before
    Column("stopped", String(16)),  # a Stop, from `stop` until `launch`; null: trials may begin
    Column("data_dir", Text),  # the folder of the images, as given at its creation; null: none
    Column("train_data", Text),  # JSON, what identifies the images; settled by the process that reads them first
    Column("test_data", Text),
    Column("search", String(32)),  # of a study of final runs: the token of the search that it judges
    Column("comparison", String(32)),  # token of the comparison that the study is a part of
    Column("contestant", String(255)),  # its contestant there
    Column("level", Text),  # its level there, as JSON
    Column("created_at", Float, nullable=False),  # seconds since 1970 by the database's clock, as every *_at
)

comparisons = Table(
    "affinity_comparisons",
    metadata,
    Column("token", String(32), primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("definition", Text, nullable=False),  # ComparisonSpec.to_dict() as JSON
    Column("created_at", Float, nullable=False),
)

places = Table(
    "affinity_places",
    metadata,
    Column("token", String(32), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),  # attempts begun and counted
    Column("lease", String(32)),  # random, new with every claim: with it the holder proves that the place is its own
    Column("lease_s", Float),  # how long the holder's lease lasts when nobody renews it
    Column("lease_until", Float),  # by the database's clock; moves on with every renewal
    Column("worker", String(128)),  # the last holder
    Column("host", String(255)),
    Column("pid", Integer),
    Column("device", String(255)),
    Column("claimed_at", Float),
    Column("finished_at", Float),
    Column("trial", Integer),  # number of the last attempt's Optuna trial
    Column("params", Text),  # JSON; every attempt of a place trains the same parameters
    Column("value", Float),  # 1 - metric of the best epoch, of pruned trials too; 0.1.0 stored none for pruned ones
    Column("reason", Text),  # why the last attempt ended without a value, for people
    Column("draw", Integer),  # of a final run: which images and which seed; null: a search's own
    Column("source", Integer),  # of a final run: the search's trial that it trains again
    Column("cause", String(CAUSE_LENGTH)),  # the same without details of the single case, to compare causes
    Index("affinity_places_state", "token", "state", "number"),
)

events = Table(
    "affinity_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("token", String(32), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("text", Text, nullable=False),
)

deliveries = Table(
    "affinity_deliveries",
    metadata,
    Column("token", String(32), primary_key=True),  # of the study, or of the comparison
    Column("target", String(64), primary_key=True),  # hash of the address that it goes to; the address may be a secret
    Column("item", String(64), primary_key=True),  # such as place/3
    Column("sent", Integer, nullable=False),  # 0: a collector sends it, until `lease_until`; 1: it is there
    Column("lease", String(32), nullable=False),  # random, new with every claim
    Column("lease_until", Float, nullable=False),
    Column("at", Float, nullable=False),  # when it was claimed or sent
)

evaluations = Table(
    "affinity_evaluations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("token", String(32), nullable=False, index=True),
    Column("trial", Integer, nullable=False),
    Column("opened_at", Float, nullable=False),  # when the test set was opened for it
    Column("opened_by", String(255), nullable=False),  # user@host
    Column("seeds", Text, nullable=False),  # JSON list of integers
    Column("scores", Text),  # JSON list of score objects, one a seed so far; null before the first
)
