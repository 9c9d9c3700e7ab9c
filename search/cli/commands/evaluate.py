"""`affinity-search evaluate`: the only reader of the test set."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from affinity_search.search.cli.options import AsJson, DataDir, Device, Storage, StudyName, Threads, console, say
from affinity_search.storage import DEFAULT_STORAGE

if TYPE_CHECKING:
    from affinity_search.search.api import Evaluated
    from affinity_search.search.experiments.evaluate import Plan
    from affinity_search.storage.study import StoredStudy

EXAMPLES = (
    "affinity-search evaluate digits --seeds 5",
    "affinity-search evaluate digits --seeds 5 --json",
)

ASKS_ABOVE = 100  # trainings
MOST_SEEDS = 10_000


def evaluate(
    study: StudyName,
    top: Annotated[int, typer.Option("--top", metavar="K", min=1, max=100_000, help="Evaluate the K best trials.")] = 1,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="S", min=1, max=MOST_SEEDS, help="Retrain each with S fresh seeds.")
    ] = 5,
    yes: Annotated[bool, typer.Option("--yes", help=f"Train more than {ASKS_ABOVE} times without asking.")] = False,
    device: Device = "auto",
    threads: Threads = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Retrain the best trials with fresh seeds and score the test set.

    Under holdout the validation images choose the epoch, and the test set is scored once for each seed. Stored scores
    are not trained again, so an interrupted evaluation goes on where it stopped.
    """
    from affinity_search.search import api

    opened = api.open(study, storage)
    planned = opened.plan_evaluation(top=top, seeds=seeds)
    _announce(opened.stored, planned, top)
    if planned.trainings > ASKS_ABOVE and not yes:
        _ask(planned.trainings)
    results = opened.evaluate(planned=planned, device=device, threads=threads, data_dir=data_dir)
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in results], indent=2))
    else:
        _show(opened.stored, results)


def _announce(stored: StoredStudy, planned: Plan, top: int) -> None:
    from affinity_search.search.view.terminal import plural, rough_text

    trials = len(planned.chosen)
    if trials < top:
        say(f"the study has {plural(trials, 'finished trial')}, fewer than --top {top}")
    stored_ones = trials * len(planned.seeds) - planned.trainings
    here = f"; {plural(stored_ones, 'score')} of earlier evaluations stay" if stored_ones else ""
    took = _seconds_each(stored, planned)
    lasts = (
        f", about {rough_text(took * planned.trainings)} on the search's machine" if took and planned.trainings else ""
    )
    say(f"{plural(trials, 'trial')} × {plural(len(planned.seeds), 'seed')}: {planned.trainings} to train{lasts}{here}")
    if trials > 1:
        say(
            f"warning: the test set is opened for {trials} trials. Report the first one: the search chose it. If you "
            "choose by these scores, no unseen images are left"
        )


def _seconds_each(stored: StoredStudy, planned: Plan) -> float | None:
    """How long a whole training took in the search, estimated from the best trial's epochs."""
    from affinity_search.storage.trials.facts import TrialFacts

    best = planned.chosen[0]
    if TrialFacts.of(best.trial).resumed_epochs:
        return None
    return best.scores.duration_s / best.scores.epochs * stored.spec.training.epochs


def _ask(trainings: int) -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            f"{trainings} trainings are more than {ASKS_ABOVE}; lower --top or --seeds, or add --yes"
        )
    typer.confirm(f"train {trainings} times?", abort=True, err=True)


def _show(stored: StoredStudy, results: list[Evaluated]) -> None:
    from affinity_search.search.view.tables import Column, Fitted
    from affinity_search.search.view.terminal import params_text

    columns = [Column("trial", right=True), Column("parameters", rank=3), Column("search", right=True, rank=2)]
    columns += [Column(name, right=True, rank=rank) for name, rank in (("mean", 0), ("least", 1), ("greatest", 1))]
    columns.append(Column("seeds", right=True))
    rows = []
    for result in results:
        scores = result.test["metrics"][stored.spec.metric]
        shown = [f"{score:.4f}" for score in (result.search, sum(scores) / len(scores), min(scores), max(scores))]
        rows.append(
            [str(result.trial), params_text(result.params, stored.spec.head), *shown, str(len(result.test["seeds"]))]
        )
    console(data=True).print(Fitted(columns, rows, f"test {stored.spec.score.label} ({stored.spec.protocol})"))
