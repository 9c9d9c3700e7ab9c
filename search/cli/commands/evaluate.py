"""`affinity-search evaluate`: final runs of a search's best trials. Only they and `train` read the test set."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affinity_search.search.cli.launching import (
    Devices,
    On,
    PerDevice,
    Tpus,
    TpuStrategy,
    Workers,
    refuse_both,
    run_shown,
)
from affinity_search.search.cli.options import (
    AsJson,
    DataDir,
    Files,
    LeaseS,
    OutageS,
    Storage,
    StudyName,
    console,
    say,
)
from affinity_search.search.worker.exits import Exit
from affinity_search.storage import DEFAULT_LEASE_S, DEFAULT_LIMIT_S, DEFAULT_STORAGE

if TYPE_CHECKING:
    from affinity_search.search.experiments.evaluate import Plan
    from affinity_search.storage.study import StoredStudy

EXAMPLES = (
    "affinity-search evaluate digits --draws 5",
    "affinity-search evaluate digits --top 5 --draws 10 --workers 2",
)

ASKS_ABOVE = 100  # trainings
MOST_DRAWS = 10_000


def evaluate(
    study: StudyName,
    top: Annotated[int, typer.Option("--top", metavar="K", min=1, max=100_000, help="Evaluate the K best trials.")] = 1,
    draws: Annotated[
        int,
        typer.Option("--draws", "--seeds", metavar="D", min=1, max=MOST_DRAWS, help="Train each on D fresh draws."),
    ] = 5,
    yes: Annotated[bool, typer.Option("--yes", help=f"Train more than {ASKS_ABOVE} times without asking.")] = False,
    workers: Workers = None,
    devices: Devices = "auto",
    per_device: PerDevice = 1,
    tpu: Tpus = None,
    tpu_strategy: TpuStrategy = False,
    on: On = None,
    data_dir: DataDir = None,
    files: Files = None,
    as_json: AsJson = False,
    storage: Storage = DEFAULT_STORAGE,
    outage_s: OutageS = DEFAULT_LIMIT_S,
    lease_s: LeaseS = DEFAULT_LEASE_S,
) -> None:
    """Train the best trials again on fresh draws, score the test set, and rank them.

    A draw is a fresh choice of the small classes' training images, of the validation images and of the seed. Under
    article only the seed is fresh. The runs go on where they stopped: what has a score is not trained again.
    """
    from affinity_search.search import api
    from affinity_search.search.api.launching import Launching
    from affinity_search.search.experiments.evaluate import results

    refuse_both(on, tpu, per_device, tpu_strategy=tpu_strategy)
    opened = api.open(study, storage)
    planned = opened.plan_evaluation(top=top, draws=draws)
    _announce(opened.stored, planned, top)
    if planned.trainings > ASKS_ABOVE and not yes:
        _ask(planned.trainings)
    where = workers, devices, per_device, tuple(tpu or ()), on
    asked = Launching(*where, data_dir, files, lease_s, outage_s, tpu_strategy)
    ended = _train(planned, asked) if planned.trainings else Exit.DONE
    found = results(planned)
    if as_json:
        typer.echo(json.dumps([_plain(result) for result in found], indent=2))
    else:
        _show(opened.stored, found)
    raise typer.Exit(ended)


def _train(planned: Plan, asked: Any) -> Exit:
    from affinity_search.search.api.preparing import prepare
    from affinity_search.search.view.publishing import write_note
    from affinity_search.storage.database.failures import first_line
    from affinity_search.storage.stored.agenda import OneStudy

    slots = asked.slots(say)  # before anything is stored
    ended = run_shown(prepare(OneStudy(planned.made()), asked, say, slots))
    try:
        write_note(planned.search.refreshed())
    except Exception as error:  # the scores are stored already, and the note is worth less
        say(f"the dashboard's note on the study could not be written: {first_line(error)}")
    return ended


def _plain(result: dict[str, Any]) -> dict[str, Any]:
    return result | {"interval": result["interval"] and asdict(result["interval"])}


def _announce(stored: StoredStudy, planned: Plan, top: int) -> None:
    from affinity_search.search.view.terminal import plural, rough_text

    trials = len(planned.chosen)
    if trials < top:
        say(f"the study has {plural(trials, 'finished trial')}, fewer than --top {top}")
    stored_ones = trials * planned.draws - planned.trainings - planned.failed
    here = f"; {plural(stored_ones, 'score')} of earlier runs stay" if stored_ones else ""
    here += f"; {plural(planned.failed, 'run')} failed earlier and stay so" if planned.failed else ""
    took = _seconds_each(stored, planned)
    lasts = (
        f", about {rough_text(took * planned.trainings)} for one worker like the search's"
        if took and planned.trainings
        else ""
    )
    say(f"{plural(trials, 'trial')} × {plural(planned.draws, 'draw')}: {planned.trainings} to train{lasts}{here}")
    if trials > 1:
        say(
            f"warning: the test set is opened for {trials} trials. If you choose by these scores, the best one is too "
            "high: the search has chosen the first, and its score is fair"
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
            f"{trainings} trainings are more than {ASKS_ABOVE}; lower --top or --draws, or add --yes"
        )
    typer.confirm(f"train {trainings} times?", abort=True, err=True)


def _show(stored: StoredStudy, results: list[dict[str, Any]]) -> None:
    from affinity_search.search.view.tables import Column, Fitted
    from affinity_search.search.view.terminal import params_text

    metric = stored.spec.metric
    columns = [Column("trial", right=True), Column("parameters", rank=4), Column("search", right=True, rank=3)]
    columns += [Column("mean", right=True), Column("95 % interval", rank=1)]
    columns += [Column("least", right=True, rank=2), Column("greatest", right=True, rank=2)]
    columns += [Column("draws", right=True)]
    ranked = len(results) > 1
    columns += [Column("rank", rank=1)] if ranked else []
    rows = []
    for rank, result in enumerate(results, start=1):
        shown = [str(result["trial"]), params_text(result["params"], stored.spec.head), f"{result['search']:.4f}"]
        shown += _scores_text(result, metric)
        shown += [_rank_text(rank, result)] if ranked else []
        rows.append(shown)
    console(data=True).print(Fitted(columns, rows, f"test {stored.spec.score.label} ({stored.spec.protocol})"))


def _scores_text(result: dict[str, Any], metric: str) -> list[str]:
    if result["test"] is None:
        return ["-", "", "-", "-", "0"]
    scores, over = result["test"]["metrics"][metric], result["interval"]
    ends = f"{over.low:.4f} to {over.high:.4f}" if over and over.n > 1 else ""
    mean = sum(scores) / len(scores)
    return [f"{mean:.4f}", ends, f"{min(scores):.4f}", f"{max(scores):.4f}", str(len(scores))]


def _rank_text(rank: int, result: dict[str, Any]) -> str:
    if rank == 1:
        return "best mean"
    return {True: "tied with the best", False: "worse", None: "too few draws to tell"}[result["tied"]]
