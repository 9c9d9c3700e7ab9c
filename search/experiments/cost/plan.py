"""The plan of a launch: trainings, epochs, time, memory, and what it costs. Nothing is stored."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affinity_search.search.experiments.cost.measuring import CannotMeasureError, Speed, speeds
from affinity_search.search.experiments.cost.work import Work, final_work_of, seconds, work_of
from affinity_search.studies.comparisons import ComparisonSpec
from affinity_search.studies.model.spec import StudySpec

if TYPE_CHECKING:
    from affinity_search.search.devices.slots import Slot
    from affinity_search.storage.study import StoredStudy

Say = Callable[[str], None]
ENOUGH_TRIALS = 5  # finished ones: from so many on a study's own trials tell how fast they are
START_S = 6.0  # until a worker's first step, where it was not measured
CONTEXT_MIB = 600  # of a GPU, for each process beside what the framework counts


@dataclass(frozen=True)
class Plan:
    """What a launch would train, and what it takes. `problem` says why it cannot be trained here."""

    name: str
    workers: int
    device: str  # the first worker's, for people
    works: tuple[tuple[Work, Speed | None], ...]
    source: str  # where the speeds come from, for people
    room: int | None = None  # workers that fit into the memory of the devices
    free_mib: int | None = None
    problem: str | None = None
    price_per_hour: float | None = None

    @property
    def trainings(self) -> int:
        return sum(work.trainings for work, _ in self.works)

    @property
    def most_epochs(self) -> int:
        return sum(work.most_epochs for work, _ in self.works)

    @property
    def expected_epochs(self) -> int:
        return sum(work.expected_epochs for work, _ in self.works)

    def seconds(self, *, pruned: bool) -> float | None:
        """From the launch to its end; None if a speed is not known."""
        known = [(work, speed) for work, speed in self.works if speed is not None]
        return seconds(known, self.workers, pruned=pruned) if len(known) == len(self.works) else None

    @property
    def memory_mib(self) -> float | None:
        """Of one worker, at most."""
        found = [speed.memory_mib for _, speed in self.works if speed is not None and speed.memory_mib is not None]
        return max(found, default=None)

    @property
    def watts(self) -> float | None:
        """Of one worker's GPU."""
        found = [speed.watts for _, speed in self.works if speed is not None and speed.watts is not None]
        return max(found, default=None)

    @property
    def price(self) -> float | None:
        """In the unit of `price_per_hour`."""
        expected_s = self.seconds(pruned=True)
        if self.price_per_hour is None or expected_s is None:
            return None
        return self.price_per_hour * expected_s / 3600

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        works = [
            {
                "study": work.study,
                "trainings": work.trainings,
                "epochs_each": work.epochs,
                "most_epochs": work.most_epochs,
                "expected_epochs": work.expected_epochs,
                "epoch_s": speed and speed.epoch_s,
                "process_s": speed and speed.process_s,
                "setup_s": speed and speed.setup_s,
                "pause_s": speed and speed.trial_s,
            }
            for work, speed in self.works
        ]
        whole = {key: getattr(self, key) for key in ("name", "workers", "device", "trainings", "most_epochs")}
        more = ("expected_epochs", "source", "memory_mib", "free_mib", "room", "watts", "price", "problem")
        times = {"seconds": self.seconds(pruned=True), "most_seconds": self.seconds(pruned=False)}
        return whole | times | {key: getattr(self, key) for key in more} | {"works": works}


def plan_study(
    spec: StudySpec,
    stored: StoredStudy | None,
    slots: Sequence[Slot],
    data_dir: Path | None,
    say: Say,
    *,
    measure: bool,
) -> Plan:
    """Of a search. Of a stored study only what is left is trained, and its own trials tell how fast they are.

    With `measure` the speed is measured here although there are finished trials.
    """
    left, own = spec.trials, Own()
    if stored is not None:
        from affinity_search.storage.places.claims import Places

        counts = Places.of(stored).counts()
        left = max(spec.trials, counts.total) - counts.used
        own = _own_trials(stored)
        kept = Path(stored.data_dir) if stored.data_dir else None
        data_dir = data_dir or kept
    work = work_of(spec, left, own.epochs)
    if not left or (own.speed is not None and not measure):
        return Plan(spec.name, len(slots), slots[0].label, ((work, own.speed),), own.source)
    plan = Plan(spec.name, len(slots), slots[0].label, ((work, None),), "")
    return _measured(plan, [spec], [0], slots, data_dir, say)


@dataclass(frozen=True)
class Own:
    """What a study's finished trials tell: their epochs, how fast they were, and that in words. Few tell nothing."""

    epochs: tuple[int, ...] = ()
    speed: Speed | None = None
    source: str = ""


def _own_trials(stored: StoredStudy) -> Own:
    from optuna.trial import TrialState

    from affinity_search.storage.trials.facts import TrialFacts

    ended = stored.optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    told = [facts for facts in map(TrialFacts.of, ended) if facts.scores is not None and not facts.resumed_epochs]
    scores = [facts.scores for facts in told if facts.scores is not None]
    if len(scores) < ENOUGH_TRIALS:
        return Own()
    epoch_s = statistics.median(each.duration_s / each.epochs for each in scores)
    devices = ", ".join(sorted({facts.device for facts in told if facts.device}))
    return Own(
        tuple(each.epochs for each in scores),
        Speed(START_S, 0.0, epoch_s, 0.0, None),
        f"from its {len(scores)} finished trials, on {devices}",
    )


def plan_comparison(spec: ComparisonSpec, slots: Sequence[Slot], data_dir: Path | None, say: Say) -> Plan:
    """Of every search and its final runs. Each contestant is measured once, at its first level."""
    works: list[tuple[Work, Speed | None]] = []
    first: dict[str, StudySpec] = {}
    which: list[int] = []
    for entry in spec.entries:
        first.setdefault(entry.contestant, entry.spec)
        search, final = work_of(entry.spec, entry.spec.trials), final_work_of(entry.spec, spec.draws)
        works += [(search, None), (final, None)]
        which += 2 * [list(first).index(entry.contestant)]
    where = slots[0].label if slots else "a cluster"
    plan = Plan(spec.name, max(len(slots), 1), where, tuple(works), "")
    return _measured(plan, list(first.values()), which, slots, data_dir, say)


def _measured(
    plan: Plan,
    specs: Sequence[StudySpec],
    which: Sequence[int],
    slots: Sequence[Slot],
    data_dir: Path | None,
    say: Say,
) -> Plan:
    """The plan with speeds that are measured here, one for each of `specs`; `which` of them is told for each work."""
    if not slots:
        return replace(plan, source="not measured: the cluster's machines may be of any speed")
    at_once = f"with {len(slots)} workers at once" if len(slots) > 1 else "with one worker"
    say(f"measuring a few seconds of training {at_once} on {', '.join(dict.fromkeys(s.label for s in slots))} …")
    try:
        found = speeds(specs, slots, data_dir)
    except CannotMeasureError as error:
        return replace(plan, problem=str(error), source="not measured")
    works = tuple((work, found[number]) for (work, _), number in zip(plan.works, which, strict=True))
    plan = replace(plan, works=works, source=f"measured here, {at_once}")
    free, room = _room(slots, plan.memory_mib or 1.0)
    return replace(plan, free_mib=free, room=room)


def _room(slots: Sequence[Slot], memory_mib: float) -> tuple[int, int]:
    """The free memory of the devices, in MiB, and how many workers fit into it."""
    import psutil

    from affinity_search.search.devices import nvidia
    from affinity_search.search.devices.slots import SHARED

    cards = {slot.uuid for slot in slots if slot.uuid is not None}
    if not cards:
        free = psutil.virtual_memory().available >> 20
        return free, int(SHARED * free / memory_mib)
    free_of = [gpu.free_mib for gpu in nvidia.gpus() if gpu.uuid in cards]
    return sum(free_of), sum(int(SHARED * free / (memory_mib + CONTEXT_MIB)) for free in free_of)
