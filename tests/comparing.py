"""What a comparison found, made by hand: the statistics are real, the scores are not."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from affinity_search.search.experiments.compare import sentence
from affinity_search.search.experiments.document import (
    ComparisonModel,
    ContestantModel,
    IntervalModel,
    LevelModel,
    PointModel,
    RunModel,
    SearchModel,
    VerdictModel,
)
from affinity_search.search.experiments.statistics import interval, verdicts

AFFINITY = {"lambda": "λ", "sigma": "σ", "n_centers": "m", "learning_rate": "rate"}
METRIC_KEYS = (
    "macro_f1",
    "balanced_accuracy",
    "geometric_mean",
    "worst_recall",
    "recall_many",
    "recall_few",
    "accuracy",
)
EIGHT = {
    "joint": 0.924,
    "affinity": 0.911,
    "focal": 0.909,
    "class_balanced": 0.903,
    "ldam": 0.866,
    "weighted": 0.864,
    "logit_adjusted": 0.846,
    "softmax": 0.861,
}
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def run(draw: int, score: float | None, recalls: Sequence[float | None] = (), **changed: Any) -> RunModel:
    metrics = {key: min(1.0, score + 0.01 * at) for at, key in enumerate(METRIC_KEYS)} if score is not None else {}
    told: dict[str, Any] = {
        "draw": draw,
        "seed": 1_000_000_007 * draw % 2**31,
        "state": "complete" if score is not None else "waiting",
        "metrics": metrics,
        "plain": metrics,
        "recalls": list(recalls) if score is not None else [],
        "best_epoch": 5 if score is not None else None,
        "seconds": 4.5 if score is not None else None,
        "reason": None,
        "opened_by": "ada@lab" if score is not None else None,
    }
    return RunModel(**told | changed)


def search(name: str, head: str, best: float, trials: int = 20, seed: int = 0) -> SearchModel:
    """A search that ends with this best score."""
    luck = random.Random(f"{name}/{seed}")
    found, spent = [], 0
    for trial in range(trials):
        pruned = luck.random() < 0.5
        spent += 3 if pruned else 10
        params = {"learning_rate": 10 ** luck.uniform(-4, -2)}
        if head in ("affinity", "joint"):
            params = {
                "lambda": 10 ** luck.uniform(-2.5, 0),
                "sigma": 10 ** luck.uniform(0, 3),
                "n_centers": 4.0,
            } | params
        score = best - luck.random() * (0.3 if pruned else 0.12) * (trial != trials // 2)
        found.append(
            PointModel(
                trial=trial,
                params=params,
                score=score,
                epochs=10,
                pruned=pruned and trial != trials // 2,
                epochs_spent=spent,
            )
        )
    return SearchModel(
        study=f"c.{name}",
        places=trials,
        complete=sum(not point.pruned for point in found),
        pruned=sum(point.pruned for point in found),
        failed=0,
        epochs=spent,
        seconds=spent * 7.3,
        best=best,
        trial=trials // 2,
        reasons={},
        points=found,
    )


def contestant(
    name: str, scores: dict[int, float], *, draws: int, sizes: Sequence[int], seed: int = 0, **changed: Any
) -> ContestantModel:
    """With the scores of its draws; those that it lacks are waiting."""
    head = name if name in EIGHT else "affinity"
    luck = random.Random(f"{name}/recalls/{seed}")
    runs = []
    for draw in range(1, draws + 1):
        score = scores.get(draw)
        fall = [min(1.0, max(0.0, (score or 0) + 0.12 * (size > 100) - 0.1 + luck.gauss(0, 0.03))) for size in sizes]
        runs.append(run(draw, score, fall))
    over = interval(list(scores.values())) if scores else None
    looked = search(name, head, max(scores.values(), default=0.5) + 0.02, seed=seed)
    chosen = next(point.params for point in looked.points if point.trial == looked.trial)
    told: dict[str, Any] = {
        "contestant": name,
        "head": head,
        "symbols": AFFINITY if len(chosen) > 1 else {"learning_rate": "rate"},
        "space": dict.fromkeys(chosen, "0.001 to 1 (log)"),
        "params": chosen,
        "search": looked,
        "runs": runs,
        "final_epochs": 10 * len(scores),
        "final_seconds": 45.0 * len(scores),
        "means": {key: float(np.mean([one.metrics[key] for one in runs if one.metrics])) for key in METRIC_KEYS}
        if scores
        else {},
        "interval": IntervalModel.model_validate(over.to_dict()) if over else None,
        "median": float(np.median(list(scores.values()))) if scores else None,
        "verdict": None,
    }
    return ContestantModel(**told | changed)


def dead(name: str, reason: str, places: int = 20) -> ContestantModel:
    """Every trial of its search failed."""
    looked = {"study": f"c.{name}", "places": places, "complete": 0, "pruned": 0, "failed": places, "epochs": 0}
    looked |= {"seconds": 0.0, "best": None, "trial": None, "reasons": {reason: places}, "points": []}
    empty: dict[str, Any] = {
        "symbols": {},
        "space": {"learning_rate": "0.0001 to 0.01 (log)"},
        "params": None,
        "runs": [],
    }
    empty |= {"final_epochs": 0, "final_seconds": 0.0, "means": {}, "interval": None, "median": None, "verdict": None}
    return ContestantModel(contestant=name, head="ldam", search=SearchModel(**looked), **empty)


def level(
    means: dict[str, float],
    *,
    draws: int = 10,
    missing: dict[str, int] | None = None,
    baseline: str = "softmax",
    extra: Sequence[ContestantModel] = (),
    text: str = "",
    key: dict[str, Any] | None = None,
    sizes: Sequence[int] = (500, 5000) * 5,
    correction: float = 0.0,
    noise: float = 0.01,
    seed: int = 0,
) -> LevelModel:
    """Contestants with scores around these means; `missing` says how many draws a contestant lacks."""
    luck = random.Random(seed)
    shared = [luck.gauss(0, noise) for _ in range(draws)]
    scores = {
        name: {
            draw: min(1.0, max(0.0, mean + shared[draw - 1] + luck.gauss(0, noise)))
            for draw in range(1, draws + 1 - (missing or {}).get(name, 0))
        }
        for name, mean in means.items()
    }
    judged = verdicts(scores, baseline, correction=correction) if scores.get(baseline) else {}
    made = [contestant(name, told, draws=draws, sizes=sizes, seed=seed) for name, told in scores.items()]
    told = [
        one.model_copy(update={"verdict": VerdictModel.model_validate(judged[one.contestant].to_dict())})
        if one.contestant in judged
        else one
        for one in made
    ]
    ranked = sorted([*told, *extra], key=lambda one: -one.means.get("macro_f1", -1.0))
    return LevelModel(
        level=key or {},
        text=text,
        verdict=sentence(baseline, "macro F1", ranked),
        class_sizes=list(sizes),
        correction=correction,
        contestants=ranked,
    )


def found(levels: Sequence[LevelModel], **changed: Any) -> ComparisonModel:
    told: dict[str, Any] = {
        "comparison": "eight-losses",
        "finished": True,
        "dataset": "cifar10",
        "protocol": "holdout",
        "metric": "macro_f1",
        "label": "macro F1",
        "baseline": "softmax",
        "draws": max(len(one.runs) for each in levels for one in each.contestants),
        "trials": 20,
        "epochs": 10,
        "classes": list(NAMES),
        "levels": list(levels),
        "devices": ["NVIDIA H100 80GB HBM3"],
        "versions": {"affinity-search": ["0.2.0"], "keras": ["3.15.1"], "python": ["3.11.7", "3.12.1"]},
        "settings": {
            "protocol": "holdout",
            "data": {"set": "cifar10", "validation": 0.2},
            "training": {"augment": True},
        },
        "definition": {"name": "eight-losses", "entries": []},
        "command": "affinity-search compare eight-losses.toml",
    }
    return ComparisonModel(**told | changed)
