"""Real launches on the device: a search, one whose worker is killed, and one whose GPU has no room."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from affinity_search.search.training.metrics import value_of
from affinity_search.search.worker.exits import Exit
from affinity_search.storage.database.backend import open_backend
from affinity_search.storage.files import StudyFiles
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.place import Place
from affinity_search.storage.study import StoredStudy, load_study
from affinity_search.storage.trials.facts import TrialFacts, attempts_at
from affinity_search.storage.trials.seeds import trial_seed
from affinity_search.studies.errors import AffinitySearchError
from benchmarks.gpu_check.setting import Result, Setting, overrides

EVERY_PLACE = ("sampler.kind=random", "pruner.kind=none")  # trains to its last epoch
# No tensor of a step has 2³¹ elements, which cuDNN refuses, and two of its hundred fill a sixteenth of any GPU.
TOO_LARGE = ("training.batch=8000", "network.widths=[128,128]", "network.depth=4", "training.precision=float32")
SHARERS = 16
KILL_WITHIN_S = 120.0


@dataclass
class Launch:
    """`affinity-search launch` in a folder of its own, and what it says."""

    setting: Setting
    folder: Path
    name: str = "check"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/check.db"

    def begin(self, places: int, workers: int, settings: tuple[str, ...]) -> subprocess.Popen[bytes]:
        """Its lines go to a file."""
        command = [sys.executable, "-P", "-m", "affinity_search", "launch", self.setting.study, "--name", self.name]
        command += ["--trials", str(places), *self.setting.workers(workers), *self.setting.data, *overrides(settings)]
        command += ["--storage", self.url, "--files", str(self.folder / "files")]
        with (self.folder / "launch.log").open("wb") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def said(self) -> str:
        return (self.folder / "launch.log").read_text(errors="replace")

    @contextlib.contextmanager
    def study(self) -> Iterator[StoredStudy]:
        backend = open_backend(self.url, create=False)
        with contextlib.closing(backend):
            yield load_study(backend, self.name)

    def wrong(self, code: int) -> list[str]:
        """What is not as it should be after a launch that had to use every place.

        Ends the part with the launch's last line if it made no study.
        """
        last = (self.said.strip().splitlines() or ["nothing was said"])[-1]
        try:
            with self.study() as study:
                counts = Places.of(study).counts()
        except AffinitySearchError:
            sys.exit(f"exit code {code}: {last}")
        found = [] if code == Exit.DONE else [f"exit code {code}: {last}"]
        found += [] if counts.used == counts.total else [f"{counts.used} of {counts.total} places used"]
        found += [f"{counts.failed} places failed"] if counts.failed else []
        return found + (["a traceback"] if "Traceback" in self.said else [])


@contextlib.contextmanager
def launching(setting: Setting) -> Iterator[Launch]:
    """A launch whose folder is gone afterwards; what it and its workers said goes to this part's own output."""
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        launch = Launch(setting, Path(folder))
        try:
            yield launch
        finally:
            for log in sorted(launch.folder.rglob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}")


def search(setting: Setting) -> Result:
    """Every place is used by workers that share the device."""
    places, workers = (4, 2) if setting.quick else (12, 3)
    sizes = ("training.epochs=3", "network.widths=[8]") if setting.quick else (*SMALL, "training.epochs=15")
    with launching(setting) as launch:
        began = time.monotonic()
        code = launch.begin(places, workers, (*EVERY_PLACE, *sizes)).wait()
        seconds = time.monotonic() - began
        wrong = launch.wrong(code)
        with launch.study() as study:
            trials = study.optuna.get_trials(deepcopy=False)
            precision = study.precision
        used = {str(TrialFacts.of(trial).worker) for trial in trials}
        trial_s = [facts.duration_s for facts in map(TrialFacts.of, trials)]
    figures = {"places": places, "workers": len(used), "launch_s": seconds, "trial_s": trial_s, "precision": precision}
    if len(used) != workers:
        wrong.append(f"{len(used)} workers had a trial, not {workers}")
    line = f"{places} places by {len(used)} workers in {seconds:.0f} s, {precision}"
    return Result(not wrong, "; ".join([line, *wrong]), figures)


SMALL = ("network.widths=[32,64,128]", "network.depth=1")


def kill(setting: Setting) -> Result:
    """A worker is killed once its trial has a checkpoint: the place goes on from there and ends as if nothing was."""
    places, workers = (2, 2) if setting.quick else (6, 3)
    sizes = ("training.epochs=150", "network.widths=[8]") if setting.quick else (*SMALL, "training.epochs=30")
    with launching(setting) as launch:
        process = launch.begin(places, workers, (*EVERY_PLACE, *sizes))
        number = _kill_one(launch, process)
        code = process.wait()
        wrong = launch.wrong(code)
        if number is None:
            return Result(False, "; ".join(["nobody was killed: no trial had a checkpoint", *wrong]))
        with launch.study() as study:
            place = Places.of(study).rows()[number]
            attempts = attempts_at(study, number)
            told = dict(sorted(attempts[-1].intermediate_values.items()))
            resumed = TrialFacts.of(attempts[-1]).resumed_epochs
            again = _retrained(setting, study, place)
    same = list(told.values()) == again
    wrong += [] if resumed else ["the killed trial began anew"]
    wrong += [] if same else ["it differs from an undisturbed training"]
    figures = {"places": places, "attempts": len(attempts), "resumed_epochs": resumed, "equal_to_retraining": same}
    return Result(not wrong, "; ".join([f"place {number} went on after epoch {resumed}", *wrong]), figures)


def _kill_one(launch: Launch, process: subprocess.Popen[bytes]) -> int | None:
    """SIGKILL for the first worker whose place has a checkpoint; the place's number, None if there never was one."""
    deadline = time.monotonic() + KILL_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
        if not (launch.folder / "check.db").exists():
            continue
        with contextlib.suppress(AffinitySearchError), launch.study() as study:
            files = StudyFiles(launch.folder / "files", study.token)
            for place in Places.of(study).held():
                if place.trial is not None and files.checkpoint(place.number).exists():
                    os.kill(place.pid, signal.SIGKILL)
                    return place.number
    return None


def _retrained(setting: Setting, study: StoredStudy, place: Place) -> list[float]:
    """The best values after each epoch of the same place, trained in this process without a break."""
    from affinity_search.search import devices
    from affinity_search.search.worker.study_trainer import StudyTrainer

    slot = setting.slot
    os.environ.update(slot.environment)
    device = devices.configure(slot.device, None if setting.is_gpu else 1)
    spec = study.spec
    trainer = StudyTrainer(device, spec, study.settled_precision, setting.data_dir)
    seed = trial_seed(spec.seed, place.number)
    epochs = trainer.epochs(place.params or {}, seed, max_centers=spec.max_centers)
    return list(accumulate((value_of(epoch.scores, spec.metric) for epoch in epochs), min))


def memory(setting: Setting) -> Result:
    """A step that the worker's share of the GPU cannot hold: exit code 71 and one line, no traceback."""
    if not setting.is_gpu:
        return Result(True, "left out: a CPU shares the machine's memory")
    with launching(setting) as launch:
        began = time.monotonic()
        code = launch.begin(1, SHARERS, (*EVERY_PLACE, *TOO_LARGE)).wait()
        return judged_memory(code, launch.said, time.monotonic() - began)


def judged_memory(code: int, said: str, seconds: float) -> Result:
    """Whether a launch ended as docs/recovery.md has it for a GPU without room."""
    last = (said.splitlines() or [""])[-1]
    wrong = [] if code == Exit.OUT_OF_MEMORY else [f"exit code {code}, not {Exit.OUT_OF_MEMORY.value}"]
    wrong += [] if last.startswith("error: ") and "ran out of memory twice" in last else [f"it said: {last}"]
    wrong += ["a traceback"] if "Traceback" in said else []
    figures = {"exit_code": code, "last_line": last, "seconds": seconds}
    return Result(not wrong, "; ".join([f"exit code {code} after {seconds:.0f} s", *wrong]), figures)
