"""`affinity-search create`: a study in the storage, before any worker."""

from __future__ import annotations

from affinity_search.search.cli.options import (
    DataDir,
    IntoExisting,
    Overrides,
    PointsFrom,
    PointsTop,
    Rename,
    Storage,
    StudySource,
    Trials,
    asked_study,
    say,
    with_points,
)
from affinity_search.storage import DEFAULT_STORAGE

EXAMPLES = (
    "affinity-search create digits --trials 50",
    "affinity-search create my-study.toml --name night --set training.epochs=40",
)


def create(
    study: StudySource,
    trials: Trials = None,
    data_dir: DataDir = None,
    storage: Storage = DEFAULT_STORAGE,
    name: Rename = None,
    overrides: Overrides = None,
    into_existing: IntoExisting = False,
    points_from: PointsFrom = None,
    top: PointsTop = 1,
) -> None:
    """Create or continue a study and run nothing; workers that are started later need only its name."""
    overrides = with_points(overrides, storage, points_from, top)
    stored = asked_study(storage, study, name, overrides, trials, data_dir, into_existing=into_existing)
    say(f"study {stored.name!r} is in {stored.backend}")
