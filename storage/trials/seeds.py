"""Seeds, all drawn from the study's: the same place trains and samples alike on every attempt and machine."""

from __future__ import annotations

import hashlib
import math


def derive_seed(study_seed: int, purpose: str, number: int) -> int:
    """A 31-bit seed for (study's seed, purpose, number): stable over versions, far apart for neighbours."""
    digest = hashlib.sha256(f"affinity-search/{study_seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


def trial_seed(study_seed: int, place: int) -> int:
    """Weights, batches and augmentation of a place, the same for every attempt."""
    return derive_seed(study_seed, "trial", place)


def run_seed(seed: int, run: int) -> int:
    """The seed of one of a trial's trainings; the first one's is the trial's own."""
    return derive_seed(seed, "run", run) if run else seed


def sampler_seed(study_seed: int, place: int) -> int:
    """The sampler's, by place: workers with one seed between them would propose the same points."""
    return derive_seed(study_seed, "sampler", place)


def is_audited(study_seed: int, place: int, share: float) -> bool:
    """Whether a trial at the place runs on when the pruner would stop it, so that one sees whether it was right.

    Every 20th place is, with a share of 0.05; the study's seed decides where that begins. A draw for each place would
    leave many a short search without any.
    """
    start = derive_seed(study_seed, "audit", 0) / 2**31
    return math.floor((place + 1) * share + start) > math.floor(place * share + start)


def draw_seed(study_seed: int, draw: int) -> int:
    """The seed of the final runs of a draw. All settings train with the same one, so their runs are pairs."""
    return derive_seed(study_seed, "draw", draw)


def evaluation_seed(study_seed: int, number: int) -> int:
    """A seed for retraining before the test set is opened; drawn apart from the trials' (31 bits, so a chance of
    N in 2³¹ to meet one of N). The same numbers each time: a second evaluation repeats the first."""
    return derive_seed(study_seed, "evaluation", number)
