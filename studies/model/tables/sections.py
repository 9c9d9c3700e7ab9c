"""The sections of a study file, each with what its keys may hold. A field's description is what a mistake says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainValidator, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from affinity_search.studies import networks
from affinity_search.studies.errors import either
from affinity_search.studies.heads import DEFAULT, HEADS
from affinity_search.studies.metrics import METRICS
from affinity_search.studies.model.mistakes import CUSTOM, Mistake, given, raised
from affinity_search.studies.model.space import SpaceSpec, presence_mistakes
from affinity_search.studies.model.tables.data import data_mistakes, shape_of, source_of
from affinity_search.studies.model.tables.section import Section

# Optuna options are stored as JSON and in databases, which end at 64 bits.
MOST_INTEGER = 2**63 - 1
SCALAR = "true or false, a finite number, or printable text"
OPTION = "true or false, a finite number, printable text, or a list of such"

# What a person may give. The model itself admits more: a study that was stored before there were these bounds goes on.
LARGEST: dict[tuple[str, ...], float] = {
    ("trials",): 100_000,
    ("max_attempts",): 100,
    ("network", "widths"): 4096,
    ("training", "epochs"): 10_000,
    ("training", "batch"): 65_536,
    ("training", "learning_rate"): 10,
    ("stop", "patience"): 100_000,
}
# What a single number may be; of a list, what each may be.
EACH = {
    key: f"a number above 0 and up to {most:.0f}"
    if key[-1] == "learning_rate"
    else f"a whole number from 1 to {most:.0f}"
    for key, most in LARGEST.items()
} | {("training", "drops"): "a number above 0 and below 1"}
AUDIT = 0.05  # the usual share of the places whose trials run on when the pruner would stop them
# What came after studies were stored without it: left out of a study's tables where it is the default, so that their
# fingerprints and definitions stay.
LATER: dict[tuple[str, ...], Any] = {
    ("metric",): "macro_f1",
    ("points",): [],
    ("network", "kind"): networks.DEFAULT,
    ("training", "optimizer"): "adam",
    ("training", "schedule"): "drops",
    ("training", "drop_by"): 5.0,
    ("training", "warmup"): 0.0,
    ("training", "sampling"): "natural",
    ("training", "adjust"): False,
    ("pruner", "audit"): AUDIT,
}
OPTION_MOST = 1_000_000  # of Optuna's options
MOST_WEIGHTS = 500_000_000


class NetworkSpec(Section):
    """The network: its kind, its size, and its head."""

    kind: str = Field(default=networks.DEFAULT, description=either(list(networks.NETWORKS)))
    # How many widths an image has room for is a rule of its own. Some networks have widths without being given any.
    widths: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = Field(
        max_length=6,
        strict=False,
        description="a list of 1 to 6 whole numbers from 1 to 4096",
    )
    depth: int = Field(default=1, ge=1, le=32, description="a whole number from 1 to 32")
    batch_norm_momentum: float = Field(default=0.9, ge=0, lt=1, description="a number from 0 and below 1")
    head: str = Field(default=DEFAULT, description=either(list(HEADS)))

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, raw: Any) -> Any:
        """The sizes that the kind has where none are given."""
        declared = _network(raw) if isinstance(raw, Mapping) else None
        if declared is None:
            return raw
        sizes = {"depth": declared.depth} | ({} if declared.widths is None else {"widths": declared.widths})
        return sizes | dict(raw)

    @field_validator("widths")
    @classmethod
    def _some(cls, widths: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        declared = _network(info.data)
        if not widths and not (declared and declared.bare):
            raise ValueError("none")
        return widths

    @field_validator("kind", "head")
    @classmethod
    def _declared(cls, name: str, info: ValidationInfo) -> str:
        if name not in (networks.NETWORKS if info.field_name == "kind" else HEADS):
            raise ValueError("unknown")
        return name


class TrainingSpec(Section):
    """One training run."""

    epochs: int = Field(ge=1, le=1_000_000, description=EACH["training", "epochs"])
    batch: int = Field(ge=1, le=1_000_000, description=EACH["training", "batch"])
    # None where the space has it.
    learning_rate: float | None = Field(default=None, gt=0, description=EACH["training", "learning_rate"])
    drops: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(0.5, 0.8),
        max_length=100,
        strict=False,
        description="a list of growing numbers between 0 and 1, or an empty one",
    )
    augment: bool = Field(default=False, description="true or false")
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16", "auto"] = Field(
        default="auto", description="float32, mixed_bfloat16, mixed_float16 or auto"
    )
    optimizer: Literal["adam", "sgd"] = Field(default="adam", description="adam or sgd (with momentum 0.9)")
    schedule: Literal["drops", "cosine"] = Field(default="drops", description="drops or cosine")
    drop_by: float = Field(default=5.0, gt=1, le=1e6, description="a number above 1 and up to 1000000")
    warmup: float = Field(default=0.0, ge=0, le=0.5, description="a share of the epochs from 0 to 0.5")
    sampling: Literal["natural", "square_root", "balanced"] = Field(
        default="natural", description="natural, square_root or balanced"
    )
    reweight_from: float | None = Field(
        default=None, ge=0, lt=1, description="a share of the epochs from 0 and below 1"
    )
    adjust: bool = Field(default=False, description="true or false")

    @field_validator("drops")
    @classmethod
    def _growing(cls, drops: tuple[float, ...]) -> tuple[float, ...]:
        if any(later <= earlier for earlier, later in pairwise(drops)):
            raise ValueError("not growing")
        return drops


def _is_scalar(value: object) -> bool:
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return abs(value) <= MOST_INTEGER
    # Databases refuse null bytes and lone surrogates; no option of Optuna's holds control characters.
    return value.isprintable() if isinstance(value, str) else isinstance(value, float) and math.isfinite(value)


def _option(value: Any) -> Any:
    if isinstance(value, list):
        wrong = [((at,), given(each, SCALAR)) for at, each in enumerate(value) if not _is_scalar(each)]
        if wrong:
            raise raised("option", wrong)
    elif not _is_scalar(value):
        raise PydanticCustomError(CUSTOM, "{text}", {"text": given(value, OPTION)})
    return value


class _WithOptions(Section):
    """A kind, and beside it in the same table the options of Optuna's class of that kind."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, PlainValidator(_option)]] = Field(init=False)

    @property
    def options(self) -> dict[str, Any]:
        """The further keys of the table: keyword arguments for Optuna's class, which alone knows their names."""
        return dict(self.__pydantic_extra__)


class SamplerSpec(_WithOptions):
    """What proposes parameters."""

    kind: Literal["tpe", "random"] = Field(default="tpe", description="tpe or random")


class PrunerSpec(_WithOptions):
    """What ends trials without prospects early."""

    kind: Literal["median", "hyperband", "halving", "none"] = Field(
        default="median", description="median, hyperband, halving or none"
    )
    # Which share of the places it stops shows whether it is right: these run on. None where nothing is pruned.
    audit: float | None = Field(default=None, ge=0, lt=1, description="a number from 0 and below 1")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        if raw.get("kind") != "none":
            return {"audit": AUDIT} | dict(raw)
        return {key: value for key, value in raw.items() if key != "audit" or value != 0}


class StopSpec(Section):
    """When a search ends before its places are used: when it has found nothing better for long enough."""

    min_gain: float = Field(default=0.002, ge=0, lt=1, description="a number from 0 and below 1; 0.002 is 0.2 points")
    patience: int = Field(default=20, ge=1, le=1_000_000, description=EACH["stop", "patience"])

    @property
    def text(self) -> str:
        """As it stands in a study file, in one line."""
        return f"min_gain = {self.min_gain:g}, patience = {self.patience}"


OPTION_NAME = "options are keyword arguments of Optuna's class, made of letters, digits and underscores"
Raw = Mapping[str, Any]


def broken_rules(raw: Raw) -> Iterator[Mistake]:
    """Every rule that the tables of a study break."""
    yield from data_mistakes(_table(raw, "data"))
    yield from _protocol(raw, _table(raw, "data"))
    yield from _validation(raw, _table(raw, "data"))
    yield from _widths(_table(raw, "data"), _table(raw, "network"))
    yield from _vectors(raw)
    head = head_of(raw)
    if head:
        yield from presence_mistakes(raw.get("space"), head)
        yield from _probabilities(raw, _table(raw, "training"), head)
    yield from _learning_rate(raw.get("space"), raw.get("training"))
    yield from _options(_table(raw, "sampler"), _table(raw, "pruner"))


def _table(raw: Raw, key: str) -> Raw:
    found = raw.get(key)
    return found if isinstance(found, Mapping) else {}


def head_of(raw: Raw) -> str | None:
    """The head that the tables name; None for one that is not declared."""
    name = _table(raw, "network").get("head", DEFAULT)
    return name if isinstance(name, str) and name in HEADS else None


def _network(network: Raw) -> networks.NetworkDefinition | None:
    """What is declared of the network that the table names; None for one that is not declared."""
    kind = network.get("kind", networks.DEFAULT)
    return networks.NETWORKS.get(kind) if isinstance(kind, str) else None


def _protocol(raw: Raw, data: Raw) -> Iterator[Mistake]:
    """The article makes the test images of a published set as imbalanced as its training images."""
    source = source_of(data)
    profile = data.get("profile") or (source.profile if source else "step")
    if raw.get("protocol") == "article" and source and (source.own is not None or profile != "step"):
        yield ("protocol",), given("article", "holdout, as article is for published sets with the profile step")


def _validation(raw: Raw, data: Raw) -> Iterator[Mistake]:
    if raw.get("protocol") == "article" and data.get("validation") is not None:
        reason = "nothing, as the article protocol scores the test images (--set data.validation=none takes it out)"
        yield ("data", "validation"), given(data["validation"], reason)


def _widths(data: Raw, network: Raw) -> Iterator[Mistake]:
    declared, widths, shape = _network(network), network.get("widths"), shape_of(data)
    if declared is None or not isinstance(widths, (list, tuple)):
        return
    if declared.halves and len(shape) == 3:
        side = min(shape[:2])
        if side.bit_length() < len(widths) <= 6:
            most = f"at most {side.bit_length()} widths for {data['set']}"
            yield ("network", "widths"), given(widths, f"{most}, whose {side} pixels are halved between them")
    whole = all(isinstance(width, int) for width in widths)
    if declared.rises and whole and any(after < before for before, after in pairwise(widths)):
        yield ("network", "widths"), given(widths, f"widths that do not fall from one to the next for {declared.name}")


def _vectors(raw: Raw) -> Iterator[Mistake]:
    """Vectors need a network that takes them, and cannot be shifted."""
    source, declared = source_of(_table(raw, "data")), _network(_table(raw, "network"))
    if source is None or source.own is None or source.own.kind != "vectors" or declared is None:
        return
    if not declared.vectors:
        able = either([each.name for each in networks.NETWORKS.values() if each.vectors])
        yield ("network", "kind"), f"{declared.name} takes images, and {source.name} are vectors; allowed: {able}"
    if _table(raw, "training").get("augment") is True:
        yield ("training", "augment"), given(True, f"false, as {source.name} are vectors")


def _probabilities(raw: Raw, training: Raw, head: str) -> Iterator[Mistake]:
    if HEADS[head].logits:
        return
    able = either([name for name, declared in HEADS.items() if declared.logits])
    metric = raw.get("metric")
    if isinstance(metric, str) and metric in METRICS and METRICS[metric].probabilities:
        yield ("metric",), f"{metric} needs probabilities, and the {head} head gives none; allowed with {able}"
    if training.get("adjust") is True:
        yield ("training", "adjust"), f"the {head} head gives no logits to adjust; allowed with {able}"


def _learning_rate(space: Any, training: Any) -> Iterator[Mistake]:
    """It stands in one of the two tables."""
    if isinstance(space, SpaceSpec):
        space = dict(space.items())
    searched = isinstance(space, Mapping) and "learning_rate" in space
    fixed = isinstance(training, Mapping) and training.get("learning_rate") is not None
    key = ("training", "learning_rate")
    if searched and fixed:
        yield key, "stands in [space] too; keep one of them (--set training.learning_rate=none takes this one out)"
    if isinstance(training, Mapping) and not searched and not fixed:
        yield key, f"missing; allowed: {EACH[key]}, here or as a range in [space]"


def _options(sampler: Raw, pruner: Raw) -> Iterator[Mistake]:
    for table, keys in (("sampler", sampler), ("pruner", pruner)):
        yield from (((table, key), f"not allowed: {OPTION_NAME}") for key in keys if not key.isidentifier())
    yield from _unwanted_options(sampler, pruner)


def _unwanted_options(sampler: Raw, pruner: Raw) -> Iterator[Mistake]:
    if "seed" in sampler:
        yield ("sampler", "seed"), "not allowed: samplers are seeded from the study's seed and the place"
    if pruner.get("kind") == "none":
        options = {key: value for key, value in pruner.items() if key not in ("kind", "audit")}
        yield from ((("pruner", key), "not allowed: kind none has no options") for key in options)
        if pruner.get("audit", 0) not in (0, None):
            yield ("pruner", "audit"), "not allowed: kind none stops no trial, so there is nothing to audit"
