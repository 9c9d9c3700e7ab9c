"""The table [data] of a study file: which images, how they are divided, and how few of the small classes there are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from affinity_search.studies.data import (
    PROFILES,
    SOURCES,
    OwnData,
    ProfileDefinition,
    SourceDefinition,
    most_minorities,
    names,
    own_sets,
)
from affinity_search.studies.errors import either
from affinity_search.studies.model.mistakes import Mistake, given, missing
from affinity_search.studies.model.tables.section import Section

LARGEST_SIDE = 1024
SIZE = f"a whole number of pixels from 4 to {LARGEST_SIDE}, or a list of two: [height, width]"
SMALL = 'a list of classes by name or number, or "even"'
FACTOR = "a number above 1 and up to 1000000: images of the largest class for one of the smallest"
OWN_KEYS = ("path", "size", "group", "test", "flip")
DEFAULT_TEST = 0.2
VALIDATION = "a number above 0 and up to 0.5, { folds = 2 to 20 }, or { repeats = 2 to 20, share = 0.2 }"
Small = Literal["even"] | tuple[str | int, ...]


def _size(raw: Any) -> tuple[int, int]:
    pair = (raw, raw) if isinstance(raw, int) else tuple(raw) if isinstance(raw, (list, tuple)) else ()
    if len(pair) != 2 or not all(type(side) is int and 4 <= side <= LARGEST_SIDE for side in pair):
        raise ValueError("no size")
    return pair


def _classes(raw: Any) -> Small:
    if raw == "even":
        return "even"
    listed = isinstance(raw, (list, tuple)) and bool(raw)
    if not listed or not all(isinstance(each, str) or type(each) is int for each in raw):
        raise ValueError("no classes")
    return tuple(raw)


class RepeatedSpec(Section):
    """A trial is trained several times, each time with other validation images; its value is the mean.

    With `folds` every image validates once. With `repeats` each time a fresh `share` of the images does.
    """

    folds: int | None = Field(default=None, ge=2, le=20)
    repeats: int | None = Field(default=None, ge=2, le=20)
    share: float | None = Field(default=None, gt=0, le=0.5)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.folds is None) == (self.repeats is None) or (self.repeats is None) != (self.share is None):
            raise ValueError("folds, or repeats with a share")
        return self


def _validation(raw: Any) -> float | RepeatedSpec | None:
    if raw is None or isinstance(raw, RepeatedSpec):
        return raw
    if isinstance(raw, Mapping):
        return RepeatedSpec.model_validate(raw)
    if not isinstance(raw, (int, float)) or isinstance(raw, bool) or not 0 < raw <= 0.5:
        raise ValueError("no share")
    return float(raw)


class FoundSpec(Section):
    """What own data were when the study was made: not for people to write; another content is another study."""

    digest: str = Field(pattern="^[0-9a-f]{64}$", description="the SHA-256 of the data's content")
    shape: tuple[int, ...] = Field(strict=False, min_length=1, max_length=3, description="of one image")
    classes: tuple[str, ...] = Field(strict=False, min_length=2, max_length=256, description="names of the classes")
    train: tuple[int, ...] = Field(strict=False, description="images of each class to train on")
    validation: tuple[int, ...] = Field(default=(), strict=False, description="of each class, where the data say which")
    test: tuple[int, ...] = Field(strict=False, description="images of each class for the test")
    test_given: bool = Field(default=False, description="whether the data say which images are for the test")


class DataSpec(Section):
    """Which images, how they are divided, and how few of the small classes."""

    set: str = Field(description=names())
    path: str | None = Field(default=None, min_length=1, description="a path, relative to the study file or --data-dir")
    size: Annotated[tuple[int, int] | None, BeforeValidator(lambda raw: None if raw is None else _size(raw))] = Field(
        default=None, description=SIZE
    )
    group: str | None = Field(default=None, min_length=1, max_length=200, description="a regular expression")
    profile: str | None = Field(default=None, description=either(list(PROFILES)))
    # Of a published set: test images kept per minority class; how many there are, and so the upper limit, is a rule of
    # its own. Of own data: training images.
    minority: int | None = Field(default=None, ge=1, description=f"a whole number from 1, up to {most_minorities()}")
    small: Annotated[Small | None, BeforeValidator(lambda raw: None if raw is None else _classes(raw))] = Field(
        default=None, description=SMALL
    )
    imbalance_factor: float | None = Field(default=None, gt=1, le=1e6, description=FACTOR)
    flip: bool | None = Field(default=None, description="true or false: whether the augmentation mirrors images")
    # None until the study resolves it by its protocol.
    validation: Annotated[float | RepeatedSpec | None, BeforeValidator(_validation)] = Field(
        default=None, description=VALIDATION
    )
    test: float | None = Field(default=None, gt=0, le=0.5, description="a number above 0 and up to 0.5")
    found: FoundSpec | None = Field(default=None, description="nothing: it is read from the data")

    @field_validator("set", "profile")
    @classmethod
    def _declared(cls, name: str | None) -> str | None:
        if name is not None and name not in SOURCES and name not in PROFILES:
            raise ValueError("unknown")
        return name

    @field_validator("group")
    @classmethod
    def _pattern(cls, group: str | None) -> str | None:
        try:
            re.compile(group or "")
        except re.error as error:
            raise ValueError("no pattern") from error
        return group

    @model_validator(mode="before")
    @classmethod
    def _as_always(cls, raw: Any) -> Any:
        """A key that says what holds without it is left out, so that the study's fingerprint is the same."""
        if not isinstance(raw, Mapping):
            return raw
        source = SOURCES.get(str(raw.get("set")))
        usual = {"profile": source.profile, "small": "even" if source.own is None else None} if source else {}
        return {key: value for key, value in raw.items() if key not in usual or value != usual[key]}

    @property
    def own(self) -> bool:
        """Whether these are a person's own data."""
        return SOURCES[self.set].own is not None

    @property
    def source(self) -> SourceDefinition:
        """What is known of the images. Classes, shape and counts of own data are empty until they were read."""
        declared = SOURCES[self.set]
        found = declared if declared.own is None else self._as_found(declared, declared.own)
        profile = self.profile or declared.profile
        small = self._small(found.classes) if profile == "step" else None
        return replace(found, profile=profile, small=small, imbalance_factor=self.imbalance_factor)

    def _as_found(self, declared: SourceDefinition, own: OwnData) -> SourceDefinition:
        found = self.found
        test = None if found and found.test_given else self.test or DEFAULT_TEST
        own = replace(own, size=self.size, group=self.group, test=test)
        if found is None:
            return replace(declared, own=own)
        # As of the published sets: an eighth of the side.
        shift = max(1, round(min(found.shape[:2]) / 8)) if len(found.shape) > 1 else 0
        known = replace(declared, shape=found.shape, classes=found.classes, train=found.train)
        return replace(known, own=own, shift_px=shift, flip=bool(self.flip))

    def _small(self, classes: tuple[str, ...]) -> tuple[bool, ...] | None:
        if not isinstance(self.small, tuple) or not classes:
            return None
        return tuple(name in self.small or label in self.small for label, name in enumerate(classes))

    @property
    def held_out(self) -> float | None:
        """The share of the training images that validates in one training; None under `article`."""
        if isinstance(self.validation, RepeatedSpec):
            return self.validation.share or 1 / (self.validation.folds or 1)
        return self.validation

    @property
    def runs(self) -> int:
        """How many trainings a trial has, each with other validation images."""
        if isinstance(self.validation, RepeatedSpec):
            return self.validation.folds or self.validation.repeats or 1
        return 1

    @property
    def folds(self) -> bool:
        """Whether the validation images of a trial's trainings are parts of one division."""
        return isinstance(self.validation, RepeatedSpec) and self.validation.folds is not None

    @property
    def title(self) -> str:
        """What people call the data: the set's name, of own data that of their folder or file."""
        return Path(self.path).stem if self.own and self.path else self.set

    @property
    def imbalance_text(self) -> str:
        """How the set was made imbalanced, as people read it: `n = 10`, `exponential, factor 100`, `natural`."""
        if self.minority is not None:
            return f"n = {self.minority}"
        if self.imbalance_factor is not None:
            return f"exponential, factor {self.imbalance_factor:g}"
        return self.source.profile


def data_mistakes(data: Mapping[str, Any]) -> Iterator[Mistake]:
    """Every rule between its keys that the table breaks."""
    source = source_of(data)
    if source is None:
        return
    yield from _own(data, source)
    profile = PROFILES.get(str(data.get("profile") or source.profile))
    if profile is not None:
        yield from _of_profile(data, source, profile)
    yield from _small(data, source)


def shape_of(data: Mapping[str, Any]) -> tuple[int, ...]:
    """Of one image or vector, as far as it is known before the data were read; else empty."""
    source, found = source_of(data), data.get("found")
    if isinstance(found, Mapping):
        return tuple(found.get("shape", ()))
    return source.shape if source else ()


def source_of(data: Mapping[str, Any]) -> SourceDefinition | None:
    """What is declared of the set that the table names; None for an unknown one."""
    name = data.get("set")
    return SOURCES.get(name) if isinstance(name, str) else None


def _own(data: Mapping[str, Any], source: SourceDefinition) -> Iterator[Mistake]:
    if source.own is None:
        for key in (*OWN_KEYS, "found"):
            if data.get(key) is not None:
                yield ("data", key), given(data[key], f"nothing with {source.name}; it is for {either(own_sets())}")
        return
    if data.get("path") is None:
        what = "the folder of the class folders" if source.name == "folder" else "an .npz file"
        yield ("data", "path"), missing(what)
    if source.name == "folder" and data.get("size") is None:
        yield ("data", "size"), missing(SIZE)
    if source.name == "features":
        wrong = [key for key in ("size", "flip") if data.get(key) is not None]
        yield from ((("data", key), given(data[key], "nothing with features, which are vectors")) for key in wrong)
    found = data.get("found")
    if isinstance(found, Mapping) and found.get("test_given") and data.get("test") is not None:
        yield ("data", "test"), given(data["test"], "nothing, as the data say which images are for the test")
    if isinstance(found, Mapping) and found.get("validation") and isinstance(data.get("validation"), Mapping):
        allowed = "nothing, as the data say which images are for validation"
        yield ("data", "validation"), given(data["validation"], allowed)
    if source.name != "folder" and data.get("group") is not None:
        allowed = f"nothing with {source.name}: an array `groups` in the file says what belongs together"
        yield ("data", "group"), given(data["group"], allowed)


def _of_profile(data: Mapping[str, Any], source: SourceDefinition, profile: ProfileDefinition) -> Iterator[Mistake]:
    """What the profile needs is there, and nothing that belongs to another one."""
    allowed = {"minority": _few(source), "small": SMALL, "imbalance_factor": FACTOR}
    # Which classes of a person's own are to be small, nobody can guess.
    needs = (*profile.needs, *(profile.takes if source.own else ()))
    for key, what in allowed.items():
        value = data.get(key)
        if value is None and key in needs:
            yield ("data", key), missing(what)
        elif value is not None and key not in (*profile.needs, *profile.takes):
            reason = f"nothing with the profile {profile.name} (--set data.{key}=none takes it out)"
            yield ("data", key), given(value, reason)
    minority = data.get("minority")
    if isinstance(minority, int) and source.most_minority is not None and minority > source.most_minority:
        yield ("data", "minority"), given(minority, _few(source))


def _few(source: SourceDefinition) -> str:
    """What `minority` may be."""
    if source.most_minority is None:
        return "a whole number from 1"
    return f"a whole number from 1 to {source.most_minority} for {source.name}"


def _small(data: Mapping[str, Any], source: SourceDefinition) -> Iterator[Mistake]:
    """The names are of classes of the set, as soon as these are known."""
    small, found = data.get("small"), data.get("found")
    classes = list(found.get("classes", ()) if isinstance(found, Mapping) else source.classes)
    if not classes or not isinstance(small, (list, tuple)):
        return
    if unknown := [each for each in small if each not in classes and each not in range(len(classes))]:
        yield ("data", "small"), given(unknown[0], either(classes[:20]))
    elif not 0 < len({each if isinstance(each, int) else classes.index(each) for each in small}) < len(classes):
        yield ("data", "small"), given(small, "at least one class, and not all of them")
