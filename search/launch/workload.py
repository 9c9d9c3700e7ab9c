"""A very rough guess of how long a trial takes on a CPU, made before anything was measured."""

from __future__ import annotations

from math import prod

from affinity_search.studies.model.spec import StudySpec
from affinity_search.studies.networks import NETWORKS

FORWARD_AND_BACKWARD = 3  # times the work of a forward pass
CORE_FLOPS = 30e9  # an assumption: the order of what a laptop core makes of float32 convolutions
LONG_S = 3600.0


def long_trial_warning(spec: StudySpec, cores: int) -> str | None:
    """A warning if a trial would take hours on so many cores; else None."""
    from affinity_search.search.view.terminal import duration_text, plural

    seconds = trial_flop(spec) / (CORE_FLOPS * cores)
    if seconds < LONG_S:
        return None
    return (
        f"warning: a trial of {spec.trial_epochs} epochs takes very roughly {duration_text(seconds)} on "
        f"{plural(cores, 'CPU core')}; use a GPU, or make the study smaller: --set training.epochs=… or "
        "--set network.widths=[…]"
    )


def trial_flop(spec: StudySpec) -> float:
    """Operations of all epochs. Only convolutions and dense layers before the head are counted: the rest is little."""
    from affinity_search.search.training.data.splits import imbalance_of

    source = spec.data.source
    images = sum(map(min, source.train, imbalance_of(source, spec.data.minority).kept))
    return FORWARD_AND_BACKWARD * _forward_flop(spec) * images * spec.trial_epochs


def _forward_flop(spec: StudySpec) -> float:
    """For one image: 2 operations for each weight, at every pixel where the weights are those of convolutions."""
    network, shape = NETWORKS[spec.network.kind], spec.data.source.shape
    widths, depth = spec.network.widths, spec.network.depth
    if not network.convolutions:
        return 2.0 * sum(network.weights(widths, depth, prod(shape)))
    height, width, channels = shape
    found = 0.0
    for weights in network.weights(widths, depth, channels):
        found += 2 * weights * height * width
        height, width = height // 2, width // 2
    return found
