"""Runs in MLflow's folder that a killed process left half written: with one of them MLflow refuses every search."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

from affinity_search.search.launch.tracking.runs import KEY

_RUN = re.compile(r"[0-9a-f]{32}")
YOUNG_S = 5.0  # its writer may be at work


def clear_half_runs(folder: Path, token: str) -> int:
    """Remove the runs of the study with that token which MLflow cannot read, and runs without a beginning, whoever
    began them. Returns how many.
    """
    over = [run for run in folder.glob("*/*") if _RUN.fullmatch(run.name) and _is_half(run, token)]
    for run in over:
        shutil.rmtree(run, ignore_errors=True)
    return len(over)


def _is_half(run: Path, token: str) -> bool:
    """MLflow writes the run's own file first, then its tags, then all else, and the first again at the end. Each is
    empty for a moment.
    """
    try:
        if time.time() - run.stat().st_mtime < YOUNG_S:
            return False
        about, key = run / "meta.yaml", run / "tags" / KEY
        metrics = [path for path in (run / "metrics").glob("**/*") if path.is_file()]
        is_ours = key.exists() and key.read_text().startswith(f"{token}/")
        if not about.exists() or not about.stat().st_size:
            return is_ours or not metrics
        return is_ours and any(not each.stat().st_size for each in metrics)
    except OSError:  # it is being written, or removed
        return False
