"""An attempt's Optuna trial, made in one piece: parameters from the sampler, and whose it is."""

from __future__ import annotations

from search.figures.trial import FILES
from search.objective import Params
from search.seeds import sampler_seed
from storage.artifacts import records
from storage.attributes import MADE_BY
from storage.drafts import drafting
from storage.places import Claim, Holder
from storage.sampling import make_pruner, make_sampler, suggest
from storage.study import StoredStudy


def ask(
    study: StoredStudy, claim: Claim, seed: int, holder: Holder, versions: dict[str, str], key: str
) -> tuple[int, Params]:
    """The new trial's id in the storage, and its parameters: those of an earlier attempt if there was one.

    `key` names the attempt's files. Leaves the claim's sampler and pruner in the study.
    """
    spec = study.spec
    study.optuna.sampler = make_sampler(spec.sampler, sampler_seed(spec.seed, claim.number), claim.params)
    study.optuna.pruner = make_pruner(spec.pruner, spec.training.epochs)
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
    pictures = records(study.token, key, FILES if params else FILES[:-1])
    return draft.publish(drafted.storage, pictures, **{MADE_BY: whose}), params
