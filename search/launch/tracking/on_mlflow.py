"""Finished trials as runs of MLflow: a server's, a folder's or a SQLite file's. The only importer of MLflow.

A run is marked with a key of study and place, and is ended last. So a run with that key that has not ended is what a
dead collector left; it is deleted, and the trial is sent again.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affinity_search.search.launch.children import PASSWORD, USER
from affinity_search.search.launch.tracking.half_runs import clear_half_runs
from affinity_search.search.launch.tracking.runs import KEY, PREFIX, Run, study_run, trial_run
from affinity_search.search.launch.tracking.targets import (
    ANSWER_S,
    AwayError,
    Finished,
    Guard,
    Item,
    Look,
    LostError,
    RefusedError,
    why,
)
from affinity_search.storage.files import StudyFiles
from affinity_search.storage.study import StoredStudy
from affinity_search.studies.errors import AffinitySearchError
from affinity_search.studies.model.tables.tracking import MlflowAddress

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_METRICS = 1000  # of one request
STUDY_KEY = f"{PREFIX}.token"
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


@dataclass
class Mlflow:
    """A target of a collector."""

    address: MlflowAddress
    say: Callable[[str], None]
    kind: str = "mlflow"
    _client: Any = None
    _experiments: dict[str, str] = field(default_factory=dict)  # by the study's token
    _present: dict[str, set[str]] = field(default_factory=dict)  # by token: the keys of runs
    _told: bool = False

    @property
    def name(self) -> str:
        return f"MLflow at {self.address.file or self.address.uri}"

    @property
    def identity(self) -> str:
        return self.address.uri

    @property
    def noun(self) -> str:
        return "run"

    def due(self, look: Look) -> list[Item]:
        """Every finished trial; and each study, when all is over."""
        items = [self._trial(one, look) for one in look.finished]
        if look.is_over:
            items += [self._study(study, look) for study in look.studies]
        return items

    def superseded(self, look: Look, waiting: Sequence[Item]) -> list[Item]:
        return []

    def _trial(self, one: Finished, look: Look) -> Item:
        """With pictures if it was the best so far: to draw them takes longer than all else."""
        token, name = one.study.token, f"place/{one.place.number}"
        files, drawn = StudyFiles(look.root, token), (token, one.place.number) in look.new_bests

        def send(guard: Guard) -> None:
            self._send(one.study, lambda key: trial_run(one, key, files, drawn=drawn), name, guard)

        return Item.of(token, name, send)

    def _study(self, study: StoredStudy, look: Look) -> Item:
        """Again when it has got more places."""
        ends = [one.place.finished_at or 0.0 for one in look.finished if one.study.token == study.token]
        used, at, files = len(ends), max(ends, default=0.0), StudyFiles(look.root, study.token)

        def send(guard: Guard) -> None:
            self._send(study, lambda key: study_run(study, key, used, at, files), "study", guard, replaces=True)

        return Item.of(study.token, f"study/{used}", send)

    def _send(
        self, study: StoredStudy, make: Callable[[str], Run], name: str, guard: Guard, *, replaces: bool = False
    ) -> None:
        """Make the run, unless it is there and whole. With `replaces` an older one is deleted when this one is whole.

        Raises:
            AwayError, RefusedError, LostError.
        """
        key = f"{study.token}/{name}"
        with self._failures(study):
            experiment = self._experiment(study)
            run, older = make(key), []
            if replaces or not guard.is_fresh or key in self._found(study, experiment):
                older = self._older(experiment, run, guard)
            if older and not replaces:
                return
            self._write(experiment, run, study.token, guard)
            for run_id in older:
                self._client.delete_run(run_id)

    def _older(self, experiment: str, run: Run, guard: Guard) -> list[str]:
        """The whole runs of that key that are there. The halves that dead collectors left are deleted.

        In a folder MLflow writes a run before its tags. So a half may lack the key; it has the name and the beginning.
        """
        found = self._client.search_runs([experiment], f"tags.`{KEY}` = '{run.key}'")
        halves = [each.info.run_id for each in found if each.info.status == "RUNNING"]
        for run_id in halves:
            guard()
            self._client.delete_run(run_id)
        for each in self._client.search_runs([experiment], "attributes.status = 'RUNNING'"):
            begun = each.info.run_name, each.info.start_time
            if not each.data.tags.get(KEY) and begun == (run.name, _ms(run.began_at)):
                guard()
                self._remove(experiment, each.info.run_id)
        return [each.info.run_id for each in found if each.info.run_id not in halves]

    def _remove(self, experiment: str, run_id: str) -> None:
        """What was cut off at its creation. In a folder MLflow itself finds no run there to delete."""
        if self.address.folder:
            shutil.rmtree(self.address.folder / experiment / run_id)
        else:
            self._client.delete_run(run_id)

    def _write(self, experiment: str, run: Run, token: str, guard: Guard) -> None:
        from mlflow.entities import Metric, Param, RunTag

        client = self._client
        guard()
        tags = {KEY: run.key, STUDY_KEY: token, "mlflow.source.name": "affinity-search", **run.tags}
        made = client.create_run(experiment, start_time=_ms(run.began_at), tags={KEY: run.key}, run_name=run.name)
        number = made.info.run_id
        try:
            guard()
        except LostError:  # it was taken over in between, and the other did not see this run
            client.delete_run(number)
            raise
        points = [Metric(each.metric, each.value, _ms(each.at), each.epoch) for each in run.points]
        client.log_batch(
            number,
            metrics=points[:MOST_METRICS],
            params=[Param(key, value) for key, value in run.params.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        for start in range(MOST_METRICS, len(points), MOST_METRICS):
            client.log_batch(number, metrics=points[start : start + MOST_METRICS])
        self._artifacts(number, run, guard)
        guard()
        client.set_terminated(number, "FAILED" if run.failed else "FINISHED", _ms(run.ended_at))

    def _artifacts(self, number: str, run: Run, guard: Guard) -> None:
        """A store that lacks a package for them, as a cloud's may, costs the artifacts alone."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in run.files.items():
                file = Path(folder) / name
                file.write_bytes(content)
                guard()
                try:
                    self._client.log_artifact(number, str(file))
                except ImportError as error:
                    if not self._told:
                        self.say(f"{self.name} cannot keep artifacts from here ({error}); all else is sent")
                    self._told = True
                    return

    def _experiment(self, study: StoredStudy) -> str:
        """That of the study, under whatever name it was made; else the one of its name; else a new one."""
        if study.token in self._experiments:
            return self._experiments[study.token]
        from mlflow.exceptions import MlflowException

        client = self._opened()
        tagged = client.search_experiments(filter_string=f"tags.`{STUDY_KEY}` = '{study.token}'")
        named = tagged[0] if tagged else client.get_experiment_by_name(study.name)
        if named is not None and named.lifecycle_stage == "deleted":
            raise AwayError(f"its experiment {study.name!r} is deleted; `mlflow experiments restore` brings it back")
        if named is not None:
            number = named.experiment_id
        else:
            try:
                number = client.create_experiment(study.name, self._artifact_location(), tags={STUDY_KEY: study.token})
            except MlflowException:  # another collector was faster
                named = client.get_experiment_by_name(study.name)
                if named is None:
                    raise
                number = named.experiment_id
        self._experiments[study.token] = str(number)
        return str(number)

    def _artifact_location(self) -> str | None:
        """Beside a SQLite file; MLflow itself would take the current folder."""
        file = self.address.file
        return None if file is None else (file.parent / f"{file.stem}.artifacts").as_uri()

    def _found(self, study: StoredStudy, experiment: str) -> set[str]:
        """The keys of the study's runs at this collector's first look: the ledger may be an older copy."""
        if study.token not in self._present:
            found: set[str] = set()
            page: str | None = ""
            while page is not None:
                runs = self._client.search_runs(
                    [experiment], f"tags.`{KEY}` LIKE '{study.token}/%'", max_results=1000, page_token=page or None
                )
                found |= {run.data.tags[KEY] for run in runs}
                page = runs.token or None
            self._present[study.token] = found
        return self._present[study.token]

    def _opened(self) -> Any:
        if self._client is None:
            self._client = _client(self.address)
        return self._client

    @contextmanager
    def _failures(self, study: StoredStudy) -> Iterator[None]:
        """MLflow's errors in the collector's words, which hold no address."""
        try:
            yield
        except (AwayError, RefusedError, LostError, AffinitySearchError):
            raise
        except Exception as error:
            self._experiments.clear()  # the store may be another one when it is back
            self._present.clear()
            code = getattr(error, "error_code", "")
            reason = why(error) or str(error).partition("\n")[0] or type(error).__name__
            if self.address.folder and not code and not isinstance(error, OSError):
                clear_half_runs(self.address.folder, study.token)
                reason = "a killed process left half a run there, which is cleared away"
            if code in REFUSALS:
                raise RefusedError(reason) from error
            raise AwayError(reason) from error


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _client(address: MlflowAddress) -> Any:
    """MLflow's client, which tries nothing again by itself, says nothing, and sends no usage data to its makers."""
    settings = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{ANSWER_S:.0f}",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_ALLOW_FILE_STORE": "true",  # without it MLflow 3 refuses folders
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    os.environ |= settings
    os.environ |= {key: value for key, value in ((USER, address.user), (PASSWORD, address.password)) if value}
    warnings.simplefilter("ignore")
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise AffinitySearchError(f"the package mlflow cannot be loaded ({error})") from error
    for name in ("mlflow", "alembic", "urllib3", "git"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if address.file:
        address.file.parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=address.uri)
