"""Trials as a typed table in a Parquet file. The only importer of pyarrow."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affinity_search.search.devices.errors import UnfitMachineError
from affinity_search.storage.files import replacing
from affinity_search.studies.metrics import METRICS

if TYPE_CHECKING:
    from affinity_search.storage.study import StoredStudy


def require_pyarrow() -> None:
    """Raises UnfitMachineError if the package is missing."""
    if importlib.util.find_spec("pyarrow") is None:
        raise UnfitMachineError("--parquet needs the package pyarrow; pip install 'affinity-search[parquet]'")


def write(path: Path, study: StoredStudy, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the whole file or leave the old one. `rows` are the study's trials as `trial_rows` gives them.

    Beside their columns there are each parameter, each metric of the best epoch, the times of beginning and end (UTC),
    and `curve`, a list: the best value of the study's metric after each epoch.

    Raises:
        StorageError: the file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, kind) for name, kind in _columns(study).items()])
    table = pa.Table.from_pylist([_flat(row) for row in rows], schema)
    with replacing(path) as draft:
        parquet.write_table(table, draft)


def _columns(study: StoredStudy) -> dict[str, Any]:
    import pyarrow as pa

    whole, real, text, when = pa.int64(), pa.float64(), pa.string(), pa.timestamp("us", tz="UTC")
    space = study.spec.space
    searched = {name: whole if space and space.limits(name).whole else real for name in study.spec.searched}
    return {
        "study": text,
        "trial": whole,
        "place": whole,
        "attempt": whole,
        "state": text,
        **searched,
        **dict.fromkeys(METRICS, real),
        "best_epoch": whole,
        "epochs": whole,
        "seconds": real,
        "seed": whole,
        "began": when,
        "ended": when,
        "curve": pa.list_(real),
        "worker": text,
        "device": text,
        "reason": text,
    }


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    times = {name: _utc(row[name]) for name in ("began", "ended")}
    return {**row, **row["params"], **row["metrics"], "macro_f1": row["macro_f1"], **times}


def _utc(time: datetime | None) -> datetime | None:
    """Optuna stores a machine's own time, without its zone."""
    return None if time is None else time.astimezone(UTC)
