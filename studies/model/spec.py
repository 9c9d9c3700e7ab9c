"""The study file's model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from affinity_search.studies.errors import StudyFileError, either
from affinity_search.studies.heads import HEADS, HeadDefinition
from affinity_search.studies.metrics import DEFAULT, METRICS, Metric
from affinity_search.studies.model.comparability import fingerprint, fingerprint_differences, widening_differences
from affinity_search.studies.model.limits import LONGEST, RULE
from affinity_search.studies.model.mistakes import MOST, given, lines, raised, show_text
from affinity_search.studies.model.parameters import Choice, Constant, IntegerRange, Parameter, Params, RealRange
from affinity_search.studies.model.space import SpaceSpec
from affinity_search.studies.model.tables.data import DataSpec, FoundSpec
from affinity_search.studies.model.tables.section import Section
from affinity_search.studies.model.tables.sections import (
    EACH,
    LATER,
    NetworkSpec,
    PrunerSpec,
    SamplerSpec,
    StopSpec,
    TrainingSpec,
    broken_rules,
    head_of,
)
from affinity_search.studies.model.tables.tracking import TrackingSpec
from affinity_search.studies.model.translate import translated
from affinity_search.studies.model.writing import to_toml

__all__ = [
    "Choice",
    "Constant",
    "DataSpec",
    "FoundSpec",
    "IntegerRange",
    "NetworkSpec",
    "Parameter",
    "PrunerSpec",
    "RealRange",
    "SamplerSpec",
    "SpaceSpec",
    "StopSpec",
    "StudySpec",
    "TrackingSpec",
    "TrainingSpec",
    "fingerprint",
    "fingerprint_differences",
    "widening_differences",
]

VALIDATION = 0.2
REQUIRED_SECTIONS = ("data", "network", "training")


def _space(raw: Any, info: ValidationInfo) -> SpaceSpec | None:
    """By the head: of the network, or of the table if there are mistakes in its other keys."""
    network = info.data.get("network")
    head = network.head if network else (info.context or {}).get("head")
    return None if raw is None or head is None else SpaceSpec.of(raw, head)


def _points(raw: Any, info: ValidationInfo) -> tuple[Params, ...]:
    space = info.data.get("space")
    if not isinstance(raw, (list, tuple)):
        raise raised("points", [((), given(raw, "a list of tables, each written as [[points]]"))])
    if not raw:
        return ()
    if space is None:
        raise raised("points", [((), "given, but the study searches nothing")])
    mistakes = [((at, *location), text) for at, each in enumerate(raw) for location, text in space.point_mistakes(each)]
    if mistakes:
        raise raised("points", mistakes)
    return tuple({key: space.limits(key).number(value) for key, value in each.items()} for each in raw)


def _plain_space(space: SpaceSpec | None) -> dict[str, Any] | None:
    return None if space is None else space.to_plain()


class StudySpec(Section):
    """A study: what is trained, how it is scored, what is searched. Constructing one raises pydantic's ValidationError.

    `from_dict` and `affinity_search.studies.files.load` raise StudyFileError instead, with lines for a person.
    """

    name: str = Field(description=RULE)
    protocol: Literal["holdout", "article"] = Field(default="holdout", description="holdout or article")
    metric: str = Field(default=DEFAULT, description=either(list(METRICS)))
    trials: int = Field(ge=1, le=1_000_000, description=EACH["trials",])
    max_attempts: int = Field(default=3, ge=1, le=1_000_000, description=EACH["max_attempts",])
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="a whole number from 0 to 4294967295")
    data: DataSpec = Field(description="a table [data]")
    network: NetworkSpec = Field(description="a table [network]")
    training: TrainingSpec = Field(description="a table [training]")
    space: Annotated[SpaceSpec | None, PlainValidator(_space), PlainSerializer(_plain_space)] = Field(
        default=None, description="a table [space]"
    )
    points: Annotated[tuple[Params, ...], PlainValidator(_points), PlainSerializer(list)] = Field(
        default=(), description="a list of tables, each written as [[points]]"
    )
    sampler: SamplerSpec = Field(default=SamplerSpec(), description="a table [sampler]")
    pruner: PrunerSpec = Field(default=PrunerSpec(), description="a table [pruner]")
    stop: StopSpec | None = Field(default=None, description="a table [stop]")
    tracking: TrackingSpec | None = Field(default=None, description="a table [tracking]")

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        if not (1 <= len(name) <= LONGEST and name.isprintable()):
            raise ValueError("not printable, or too long")
        return name

    @field_validator("metric")
    @classmethod
    def _declared(cls, key: str) -> str:
        if key not in METRICS:
            raise ValueError("unknown")
        return key

    @field_validator("data")
    @classmethod
    def _resolve_validation(cls, data: DataSpec, info: ValidationInfo) -> DataSpec:
        if data.validation is None and info.data.get("protocol") == "holdout":
            return data.model_copy(update={"validation": VALIDATION})
        return data

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        broken = list(broken_rules(self.to_dict()))
        if broken:
            raise raised("study", broken)
        return self

    @property
    def max_centers(self) -> int | None:
        """How many centres per class the network must have room for; None without a space."""
        return self.space.max_centers if self.space else None

    @property
    def trial_epochs(self) -> int:
        """Epochs of a whole trial: those of a training, times its trainings."""
        return self.training.epochs * self.data.runs

    @property
    def head(self) -> HeadDefinition:
        """What the network ends in: the declaration of the study's head."""
        return HEADS[self.network.head]

    @property
    def searched(self) -> list[str]:
        """The names of the parameters that a trial has."""
        return [key for key, _ in self.space.items()] if self.space else []

    @property
    def score(self) -> Metric:
        """What a trial's score is: the declaration of the study's metric."""
        return METRICS[self.metric]

    def to_dict(self) -> dict[str, Any]:
        """The study in the file's own keys and shape; ready for JSON.

        Every default is written out but those of `LATER`: so were studies stored, and hashed, when there was no choice.
        """
        plain = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        for (*tables, key), usual in LATER.items():
            table = plain[tables[0]] if tables else plain
            if key in table and table[key] == usual:
                del table[key]
        return plain

    def to_toml(self) -> str:
        """The study as a study file, with every default written out."""
        return to_toml(self.to_dict())

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], source: str = "the study") -> StudySpec:
        """The study that `to_dict` or a parsed file describes.

        Raises StudyFileError with all mistakes at once; `source` is how its message calls the file.
        """
        if not isinstance(raw, Mapping):
            raise StudyFileError(show_text(source), [given(raw, "a table of keys and values")])
        # A missing section counts as an empty one, so that each key missing in it is named.
        whole = {**{key: {} for key in REQUIRED_SECTIONS}, **raw}
        try:
            return cls.model_validate(whole, context={"head": head_of(whole)})
        except ValidationError as error:
            # Without mistakes in single values the model itself has found the broken rules.
            mistakes = list(dict.fromkeys(translated(cls, error)))
            told = {location for location, _ in mistakes}
            mistakes += [each for each in dict.fromkeys(broken_rules(whole)) if each[0] not in told]
        raise StudyFileError(show_text(source), lines(mistakes[:MOST]), max(0, len(mistakes) - MOST))
