"""What a collector has sent, as MLflow itself tells it, and collectors to send it."""

from pathlib import Path
from typing import Any

from affinity_search.search.launch.tracking import on_mlflow
from affinity_search.search.launch.tracking.addresses import Sending
from affinity_search.search.launch.tracking.collector import Collector
from affinity_search.storage.files import default_root
from affinity_search.storage.places.claims import Places
from affinity_search.storage.stored.agenda import OneStudy
from affinity_search.storage.study import StoredStudy
from affinity_search.studies.metrics import score_of
from affinity_search.studies.model.tables.tracking import address_of

SECRET = "hooks-4711-geheim"


def client(where: str | Path) -> Any:
    """MLflow's own, as a person would look there."""
    return on_mlflow._client(address_of(str(where)))


def all_runs(where: str | Path) -> list[Any]:
    there = client(where)
    numbers = [experiment.experiment_id for experiment in there.search_experiments()]
    return list(there.search_runs(numbers, max_results=1000))


def runs(where: str | Path, *, all_of_them: bool = False) -> dict[str, Any]:
    """The runs of finished trials by place, as MLflow has them; no place has two."""
    found = all_runs(where)
    kinds = {run.info.run_id: run.data.tags.get("affinity_search.kind") for run in found}
    trials = [run for run in found if all_of_them or kinds[run.info.run_id] != "study"]
    by_key = {run.data.tags["affinity_search.key"].partition("/")[2]: run for run in trials}
    assert len(by_key) == len(trials), sorted(run.data.tags["affinity_search.key"] for run in trials)
    return by_key


def steps(where: str | Path, run: Any, metric: str = "best_macro_f1") -> list[tuple[int, float]]:
    """(epoch, value) in the order in which they are stored: a value that was sent twice stands there twice."""
    return [(each.step, each.value) for each in client(where).get_metric_history(run.info.run_id, metric)]


def collector(study: StoredStudy, where: str | Path | None = None, notify: str | None = None, **more: Any) -> Collector:
    mlflow = None if where is None else address_of(str(where))
    root = default_root(study.backend.url)
    return Collector(OneStudy(study.refreshed()), Sending(mlflow, notify), root, more.pop("say", print), **more)


def whole(where: str | Path, study: StoredStudy) -> None:
    """Every used place is one run that has ended, with exactly the epochs of its trial."""
    trials = {trial.number: trial for trial in study.optuna.trials}
    places = [place for place in Places.of(study).rows() if place.is_used]
    found = runs(where)
    assert sorted(found) == sorted(f"place/{place.number}" for place in places)
    for place in places:
        run = found[f"place/{place.number}"]
        assert run.info.status == ("FAILED" if place.value is None else "FINISHED")
        assert place.trial is not None
        told = trials[place.trial].intermediate_values
        assert steps(where, run) == [(step + 1, score_of(value)) for step, value in sorted(told.items())]
