"""A very rough guess of how long a trial takes on a CPU, made before anything was measured."""

from __future__ import annotations

from affinity_search.studies.model.spec import StudySpec

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
        f"warning: a trial of {spec.training.epochs} epochs takes very roughly {duration_text(seconds)} on "
        f"{plural(cores, 'CPU core')}; use a GPU, or make the study smaller: --set training.epochs=… or "
        "--set network.widths=[…]"
    )


def trial_flop(spec: StudySpec) -> float:
    """Operations of all epochs. Only the convolutions are counted: the rest is little."""
    from affinity_search.search.training.data.splits import imbalance_of

    source = spec.data.source
    images = sum(map(min, source.train, imbalance_of(source, spec.data.minority).kept))
    return FORWARD_AND_BACKWARD * _forward_flop(spec) * images * spec.training.epochs


def _forward_flop(spec: StudySpec) -> float:
    """For one image: 2 operations × 9 weights × channels in × channels out at every pixel."""
    height, width_px, before = spec.data.source.shape
    side, flop = (height * width_px) ** 0.5, 0.0
    for width in spec.network.widths:
        for _ in range(spec.network.depth):
            flop += 2 * 9 * before * width * side * side
            before = width
        side /= 2
    return flop
