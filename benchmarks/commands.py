"""Running the real command from a benchmark, as a person would."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from affinity_search.search import devices
from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.study import load_study
from affinity_search.storage.trials.facts import TrialFacts

OUT = Path(__file__).parent / "out"


class Command:
    """`affinity-search` against one SQLite file under benchmarks/out."""

    def __init__(self, name: str, data_dir: str | None) -> None:
        OUT.mkdir(exist_ok=True)
        if (OUT / f"{name}.db").exists():
            print(f"what an earlier run finished is in {OUT / name}.db and is not measured again", file=sys.stderr)
        self.url = f"sqlite:///{OUT / name}.db"
        self._environment = os.environ | {"AFFINITY_SEARCH_STORAGE": self.url}
        self._data = ["--data-dir", data_dir] if data_dir else []

    def launch(self, study: str, *options: str) -> None:
        """Continues where an interrupted benchmark stopped: the places are in the database."""
        self._run("launch", study, *options, *self._data)

    def evaluate(self, study: str, draws: int, *options: str) -> dict[str, Any]:
        """The test scores of the study's best trial; those of an earlier run of the benchmark if it has them."""
        tested = self.export(study)["test"]
        if tested is None or len(tested["draws"]) != draws:
            self._run("evaluate", study, "--draws", str(draws), *options, *self._data)
            tested = self.export(study)["test"]
        return dict(tested)

    def embed(self, study: str, *options: str) -> None:
        """Pictures of the study's best trial."""
        self._run("embed", study, *options, *self._data)

    def export(self, study: str) -> dict[str, Any]:
        return dict(json.loads(self._run("export", study)))

    def trial_seconds(self, study: str) -> list[tuple[str, float]]:
        """Each complete trial's worker, and how long it took from its claim on, in their order."""
        backend = open_backend(self.url, create=False)
        complete = load_study(backend, study).optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        backend.close()
        found = map(TrialFacts.of, complete)
        return [(str(facts.worker), facts.duration_s or 0.0) for facts in found]

    def _run(self, *arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "affinity_search", *arguments]
        done = subprocess.run(command, env=self._environment, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:  # it has said why
            sys.exit(f"error: affinity-search {arguments[0]} ended with exit code {done.returncode}")
        return done.stdout


def machine() -> str:
    """One line for a table's foot: processor, cores and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    found = devices.versions()
    packages = {"keras": found["keras"], found["backend"]: found["backend_version"]}
    packages |= {name: found[name] for name in ("optuna", "scikit-learn")}
    versions = ", ".join(f"{package} {version}" for package, version in packages.items())
    return f"{len(os.sched_getaffinity(0))} cores of {model}, Python {found['python']}, {versions}"
