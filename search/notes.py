"""The notes that the dashboard shows beside a study and beside its best trials, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial

from search.advice import Verdict, diagnostics_of
from storage.attributes import attributes
from storage.bounds import Crowded
from storage.study import StoredStudy
from storage.tallies import Counts

BEST = 20


def study_note(
    study: StoredStudy,
    counts: Counts,
    best: Sequence[tuple[FrozenTrial, dict[str, Any]]],
    bounds: Sequence[Crowded],
    verdicts: Sequence[Verdict],
) -> str:
    """What is searched, how far it is, the best trials, and what the bounds and the trials' diagnostics say."""
    spec = study.spec
    lines = [
        f"**{spec.data.set}**, n = {spec.data.minority} test images per minority class, protocol **{spec.protocol}**",
        "",
        f"{counts.used} of {counts.total} places used: {counts.complete} complete, {counts.pruned} pruned, "
        f"{counts.failed} failed; {counts.running} running.",
        "",
        *_definition(study),
        "",
    ]
    if best:
        lines += ["| rank | trial | macro F1 | minority F1 | majority F1 | parameters |", "|---|---|---|---|---|---|"]
        lines += [_row(rank, trial, row["params"]) for rank, (trial, row) in enumerate(best[:10], start=1)]
        lines += ["", _warning(spec.protocol), ""]
    lines += [f"- {crowded.text}" for crowded in bounds]
    lines += [f"- {verdict.text}" for verdict in verdicts]
    return "\n".join(lines).strip() + "\n"


def trial_note(
    study: StoredStudy, trial: FrozenTrial, row: dict[str, Any], rank: int, verdicts: Sequence[Verdict]
) -> str:
    """How it ended, its scores, a table of its classes, its diagnostics, and the verdicts that concern it."""
    attrs, protocol = attributes(trial), study.spec.protocol
    told = diagnostics_of(trial)
    classes = zip(attrs["per_class_f1"], attrs["support"], strict=True)
    lines = [
        f"**Rank {rank}** of the trials ({row['state']}): macro F1 **{attrs['macro_f1']:.4f}** ({protocol}) at epoch "
        f"{attrs['best_epoch']} of {attrs['epochs']}, micro F1 {attrs['micro_f1']:.4f}, minority "
        f"{attrs['minority_f1']:.4f}, majority {attrs['majority_f1']:.4f}.",
        "",
        f"Place {row['number']}, attempt {attrs['attempt']}, seed {attrs['seed']}, {attrs['duration_s']:.1f} s on "
        f"{attrs['device']} by `{attrs['worker']}`.",
        "",
        "| class | | images scored | F1 |",
        "|---|---|---|---|",
        *(
            f"| {number} | {'majority' if number % 2 else 'minority'} | {support} | {f1:.4f} |"
            for number, (f1, support) in enumerate(classes)
        ),
        "",
    ]
    if told:
        lines += [
            f"At the end {told.inside:.0%} of the training images were inside the margin and {sum(told.dead)} of "
            f"{len(told.dead) * told.n_centers} centres dead; hinge {told.hinge:.4f}, diversity {told.diversity:.4f}.",
            *(f"- {verdict.text}" for verdict in verdicts if verdict.concerns(trial.number)),
        ]
    return "\n".join(lines).strip() + "\n"


def _definition(study: StoredStudy) -> list[str]:
    spec = study.spec
    network, training = spec.network, spec.training
    space = spec.space.items() if spec.space else []
    return [
        f"- network: widths {list(network.widths)}, depth {network.depth}, {network.head} head",
        f"- training: {training.epochs} epochs, batch {training.batch}, rate {training.learning_rate:g}, "
        f"{'with' if training.augment else 'without'} augmentation, {study.precision or training.precision}",
        f"- sampler {spec.sampler.kind}, pruner {spec.pruner.kind}, fingerprint `{study.fingerprint[:12]}`",
        *(f"- {name}: {parameter.describe()}" for name, parameter in space),
    ]


def _row(rank: int, trial: FrozenTrial, params: dict[str, float | int] | None) -> str:
    attrs = attributes(trial)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in (params or {}).items()) or "softmax"
    scores = " | ".join(f"{attrs[name]:.4f}" for name in ("macro_f1", "minority_f1", "majority_f1"))
    return f"| {rank} | {trial.number} | {scores} | {shown} |"


def _warning(protocol: str) -> str:
    if protocol == "article":
        return "Scored on the test images, as the article does: these numbers flatter."
    return "Scored on validation images, and the best of many: quote `affinity-search evaluate`."
