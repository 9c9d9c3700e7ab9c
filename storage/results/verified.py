"""Which runs were trained again, and what came out: read from the study's history."""

from __future__ import annotations

from affinity_search.storage.study import StoredStudy, history

VERIFIED = "verified"  # the kind of event; its text begins with the run


def verification(study: StoredStudy, trial: int) -> str | None:
    """The latest verdict on a trial, with who verified it; None if nobody has."""
    told = [event["text"] for event in history(study) if event["kind"] == VERIFIED]
    mine = [text for text in told if text.startswith(f"trial {trial} (")]
    return mine[-1].partition(": ")[2] if mine else None
