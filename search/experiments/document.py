"""The document of a comparison: what the terminal, the page, the Markdown and the JSON show."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from affinity_search.storage.results.export import ExportedPruning


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IntervalModel(_Model):
    """A mean with its interval; null for what is not known."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    level: float


class VerdictModel(_Model):
    """A contestant against the baseline, over the draws that both have. Differences are contestant − baseline."""

    contestant: str
    verdict: Literal["better", "worse", "no difference shown", "too few draws"]
    difference: IntervalModel = Field(description="paired, 95 %, by Student's t over the draws")
    corrected: IntervalModel | None = Field(description="at the level that Holm's correction over all rivals leaves")
    p: float | None = Field(description="two-sided")
    adjusted: float | None = Field(description="p after Holm's correction")
    smallest: float | None = Field(description="a true difference of this size would be shown in 80 % of comparisons")
    with_test_images: IntervalModel | None = Field(description="95 %, over other draws and other test images too")
    left_out: list[int] = Field(description="draws that only one of the two has")


class RunModel(_Model):
    """One final run: the chosen settings trained on one draw, scored once on the test images."""

    draw: int
    seed: int
    state: Literal["complete", "failed", "waiting", "running"]
    metrics: dict[str, float] = Field(description="weighted as the study imagines its classes; empty without a score")
    plain: dict[str, float] = Field(description="the same without weights")
    recalls: list[float | None] = Field(description="of each class; empty without a score")
    best_epoch: int | None
    seconds: float | None
    reason: str | None = Field(description="why it failed")
    opened_by: str | None = Field(description="user@host that opened the test images for it")


class PointModel(_Model):
    """A trial of a search, in the order of their ends."""

    trial: int
    params: dict[str, int | float]
    score: float = Field(description="on validation images, by the comparison's metric")
    epochs: int
    pruned: bool
    epochs_spent: int = Field(description="of this search up to this trial's end")


class SearchModel(_Model):
    """A contestant's search."""

    study: str
    places: int
    complete: int
    pruned: int
    failed: int
    epochs: int
    seconds: float = Field(description="of training, over all workers")
    best: float | None = Field(description="its best score on validation images: too high, as the best of many")
    trial: int | None
    reasons: dict[str, int] = Field(description="why places failed, and how many")
    pruning: ExportedPruning | None = Field(default=None, description="null where the pruner had nothing to stop")
    points: list[PointModel]


class ContestantModel(_Model):
    """A contestant at one level."""

    contestant: str
    head: str
    symbols: dict[str, str] = Field(description="how its settings are shown")
    space: dict[str, str] = Field(description="what was searched, in words")
    params: dict[str, int | float] | None = Field(description="the settings that its search chose; null without any")
    search: SearchModel
    runs: list[RunModel]
    final_epochs: int
    final_seconds: float
    means: dict[str, float] = Field(description="of every metric over the final runs")
    interval: IntervalModel | None = Field(description="of the mean of the comparison's metric, 95 %")
    median: float | None = Field(description="of the comparison's metric over the final runs")
    verdict: VerdictModel | None = Field(description="null for the baseline")
    published: float | None = Field(default=None, description="a figure of others for it, from the comparison's file")


class LevelModel(_Model):
    """One level: everything compared under the same values."""

    level: dict[str, Any] = Field(description="keys of the study file with their values; empty without levels")
    text: str
    verdict: str = Field(description="what it comes to, in one sentence or a few")
    class_sizes: list[int] = Field(description="training images of each class, before the validation images are taken")
    correction: float = Field(description="added to 1/n in every variance, because draws share training images")
    contestants: list[ContestantModel] = Field(description="the best mean first, those without a score last")


class ComparisonModel(_Model):
    """A comparison and what it found. Scores are fractions in [0, 1]."""

    schema_version: Literal[1] = 1
    comparison: str
    finished: bool
    dataset: str = Field(description="name of the set, of own data that of their folder or file")
    protocol: str
    metric: str
    label: str = Field(description="the metric's name for people")
    baseline: str
    draws: int
    trials: int = Field(description="places of each contestant's search")
    epochs: int
    classes: list[str]
    levels: list[LevelModel]
    devices: list[str]
    versions: dict[str, list[str]] = Field(description="every version that trained a part of it")
    settings: dict[str, Any] = Field(description="what all studies have in common, in the keys of a study file")
    definition: dict[str, Any] = Field(description="the whole comparison as it is stored: every contestant's study")
    file: str = Field(default="", description="the comparison as a file, for the command")
    command: str = Field(description="repeats it")


@cache
def schema_text() -> str:
    """The JSON schema that ships beside this file."""
    return (Path(__file__).parent / "comparison.schema.json").read_text(encoding="utf-8")


def make_schema() -> str:
    """The schema as the models define it. `make schema` writes it."""
    return json.dumps(ComparisonModel.model_json_schema(by_alias=True), indent=2) + "\n"
