"""Creates an attempt's Optuna trial in one piece: the sampler's parameters and the facts of the attempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from affinity_search.storage.database.optuna_storage.drafts import drafting
from affinity_search.storage.database.runtime import user_at_host
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.artifacts import records
from affinity_search.storage.trials.facts import MADE_BY
from affinity_search.storage.trials.sampling import make_pruner, make_sampler, suggest
from affinity_search.storage.trials.seeds import sampler_seed
from affinity_search.studies.model.parameters import Params
from affinity_search.studies.model.spec import StudySpec

if TYPE_CHECKING:
    from affinity_search.storage.places.claims import Claim, Holder


def _planned(spec: StudySpec, place: int) -> Params | None:
    """The settings that the study plans for the place; its first places are those of its points."""
    return dict(spec.points[place]) if place < len(spec.points) else None


def ask(
    study: StoredStudy,
    claim: Claim,
    seed: int,
    holder: Holder,
    versions: dict[str, str],
    key: str,
    pictures: Sequence[str],
) -> tuple[int, Params]:
    """The new trial's id in the storage, and its parameters. After an earlier attempt they are the same again.

    The first places take the study's points; what a point leaves out is drawn at random.
    `key` names the attempt's files; `pictures` are the names of its pictures. Sets the claim's sampler and pruner in
    the study.
    """
    spec = study.spec
    fixed = _planned(spec, claim.number) if claim.params is None else claim.params
    study.optuna.sampler = make_sampler(spec.sampler, sampler_seed(spec.seed, claim.number), fixed)
    study.optuna.pruner = make_pruner(spec.pruner, spec.trial_epochs)
    with drafting(claim.number) as draft:
        drafted = study.optuna.ask()
        params = suggest(drafted, spec.space)
    whose = {
        "place": claim.number,
        "attempt": claim.attempt,
        "seed": seed,
        "worker": holder.worker,
        "device": holder.device,
        "protocol": spec.protocol,
        "versions": versions,
    }
    if claim.draw is not None:
        whose |= {"draw": claim.draw, "source": claim.source, "opened_by": user_at_host()}
    told = records(study.token, key, pictures)
    return draft.publish(drafted.storage, told, **{MADE_BY: whose}), params
