"""Samplers and pruners that are compared, each as a study file would name it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from affinity_search.studies.model.spec import PrunerSpec, SamplerSpec

Options = dict[str, Any]

REFERENCE = ("TPE, each parameter alone, no liar", "median, no warm-up")
RANDOM = ("random", "none")
DEFAULT = ("TPE", "median, no warm-up")
# What the bundled studies take: named here alone, a test holds the studies and README's tables to it.
CHOSEN = ("TPE, 3 random first", "halving, from 2, by 3")

SAMPLERS: dict[str, Options] = {
    REFERENCE[0]: {"kind": "tpe", "multivariate": False, "constant_liar": False},
    "random": {"kind": "random"},
    "TPE": {"kind": "tpe"},  # Optuna 5's defaults: multivariate, constant liar, 10 random first
    "TPE, 3 random first": {"kind": "tpe", "n_startup_trials": 3},
    "TPE, 5 random first": {"kind": "tpe", "n_startup_trials": 5},
    "TPE, 20 random first": {"kind": "tpe", "n_startup_trials": 20},
    "TPE, groups": {"kind": "tpe", "multivariate": True, "group": True},
}
PRUNERS: dict[str, Options] = {
    REFERENCE[1]: {"kind": "median", "n_warmup_steps": 0},  # Optuna 5's default as well
    "none": {"kind": "none"},
    "median, 2 epochs warm-up": {"kind": "median", "n_warmup_steps": 2},
    "median, 4 epochs warm-up": {"kind": "median", "n_warmup_steps": 4},
    "median, 1 epoch warm-up, from the third trial": {"kind": "median", "n_warmup_steps": 1, "n_startup_trials": 2},
    "halving, from 1, by 2": {"kind": "halving", "min_resource": 1, "reduction_factor": 2},
    "halving, from 1, by 3": {"kind": "halving", "min_resource": 1, "reduction_factor": 3},
    "halving, from 1, by 4": {"kind": "halving", "min_resource": 1, "reduction_factor": 4},
    "halving, from 2, by 2": {"kind": "halving", "min_resource": 2, "reduction_factor": 2},
    "halving, from 2, by 3": {"kind": "halving", "min_resource": 2, "reduction_factor": 3},
    "halving, from 2, by 4": {"kind": "halving", "min_resource": 2, "reduction_factor": 4},
    "halving, from 3, by 3": {"kind": "halving", "min_resource": 3, "reduction_factor": 3},
    "halving, from 3, by 4": {"kind": "halving", "min_resource": 3, "reduction_factor": 4},
    "hyperband, by 3": {"kind": "hyperband", "min_resource": 1, "reduction_factor": 3},
}


@dataclass(frozen=True)
class Contender:
    """A sampler and a pruner."""

    sampler: str
    pruner: str

    @property
    def sampler_spec(self) -> SamplerSpec:
        return SamplerSpec(**SAMPLERS[self.sampler])

    @property
    def pruner_spec(self) -> PrunerSpec:
        return PrunerSpec(**PRUNERS[self.pruner])


# In a space that never changes groups come to the same as none: a few pruners show it.
FEW = (REFERENCE[1], "none", "halving, from 2, by 3")
ALL = [
    Contender(sampler, pruner)
    for sampler in SAMPLERS
    for pruner in PRUNERS
    if pruner in FEW or sampler not in ("TPE, groups", "TPE, 20 random first")
]
