"""What the pruner saved, and how often it was wrong: the trials that it would have stopped and that ran on tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from affinity_search.storage.database.tables import USED, PlaceState
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.place import Outcome
from affinity_search.storage.results.bounds import BEST_SHARE
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import audited_after, epochs_of, place_of


@dataclass(frozen=True)
class Ended:
    """A place that is used up, as far as the pruner has to do with it."""

    is_pruned: bool
    value: float | None  # 1 - metric; None without one
    epochs: int  # trained; 0 where the pruner had nothing to do with it
    audited_after: int | None  # so many epochs were trained when the pruner would have stopped it; it ran on


@dataclass(frozen=True)
class Pruning:
    """The figures of one study."""

    share: float  # of the places, whose trials run on; 0: none do
    stopped: int  # trials that the pruner stopped
    epochs_saved: int  # epochs that these did not train
    audited: int  # trials that it would have stopped and that ran on
    epochs_cost: int  # epochs that these trained since
    among_best: int  # how many of them ended among the best tenth
    best_tenth: int  # how many trials the best tenth is: rounded up, and with ties more may be among them
    scored: int  # … of how many with a score

    @classmethod
    def of(cls, ended: Sequence[Ended], epochs: int, share: float) -> Self:
        """From all places that are used up; a whole trial has `epochs`.

        An audited trial is among the best tenth if fewer than that many trials are better. An audited trial that failed
        is not among them.
        """
        values = sorted(one.value for one in ended if one.value is not None)
        best = -(-len(values) // BEST_SHARE)
        pruned = [one for one in ended if one.is_pruned]
        audited = [one for one in ended if one.audited_after is not None]
        return cls(
            share=share,
            stopped=len(pruned),
            epochs_saved=sum(epochs - one.epochs for one in pruned),
            audited=len(audited),
            epochs_cost=sum(one.epochs - (one.audited_after or 0) for one in audited),
            among_best=sum(one.value is not None and one.value <= values[best - 1] for one in audited),
            best_tenth=best,
            scored=len(values),
        )

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the share that is wrong, the 95 % interval of Clopper and Pearson; None where nothing was audited."""
        if not self.audited:
            return None
        from scipy.stats import binomtest

        found = binomtest(self.among_best, self.audited).proportion_ci(confidence_level=0.95, method="exact")
        return float(found.low), float(found.high)

    @property
    def text(self) -> str | None:
        """What a person should know, in one line; None while the pruner has stopped nothing and would have stopped
        nothing.
        """
        if not (self.stopped or self.audited):
            return None
        saved = f"pruning stopped {_plural(self.stopped, 'trial')} and saved {_plural(self.epochs_saved, 'epoch')}"
        return f"{saved}; {self.audit_text}"

    @property
    def audit_text(self) -> str:
        """How often the pruner was wrong, as far as it is known."""
        if self.interval is None:
            why = "no trial that it would have stopped has run on yet" if self.share else "nothing is audited"
            return f"how often it was wrong is unknown: {why} (audit = {self.share:g})"
        low, high = self.interval
        ran = f"{self.audited} more that it would have stopped ran on, which cost {_plural(self.epochs_cost, 'epoch')}"
        among = f"{self.among_best} of these {self.audited} ended among the best tenth"
        if self.audited == 1:
            among = f"it ended {'' if self.among_best else 'not '}among the best tenth"
        return (
            f"{ran}: {among} (the best {self.best_tenth} of {self.scored} trials; "
            f"95 % interval of the share {100 * low:.0f} to {100 * high:.0f} %)"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "interval": self.interval and list(self.interval)}


def pruning_of(study: StoredStudy) -> Pruning:
    """The figures of a stored study, as it is now."""
    outcomes = [one for one in Places.of(study).outcomes() if one.state in USED]
    trials = study.optuna.get_trials(deepcopy=False)
    marks = {place_of(trial): after for trial in trials if (after := audited_after(trial)) is not None}
    numbered = {trial.number: trial for trial in trials}

    def ended(one: Outcome) -> Ended:
        is_pruned, after = one.state == PlaceState.PRUNED, marks.get(one.number)
        trial = numbered.get(one.trial) if one.trial is not None and (is_pruned or after is not None) else None
        return Ended(is_pruned, one.value, epochs_of(trial) if trial else 0, after)

    return Pruning.of([ended(one) for one in outcomes], study.spec.trial_epochs, study.spec.pruner.audit or 0.0)


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
