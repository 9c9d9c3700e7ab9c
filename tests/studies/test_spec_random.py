"""Random studies round-trip; random junk is told, never a traceback."""

import json
import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from test_spec import changed

from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.model.spec import StudySpec


def _reals(most: float) -> st.SearchStrategy[Any]:
    real = st.floats(min_value=0, max_value=most, exclude_min=True) | st.just(1)
    return _parameter(real)


def _parameter(number: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pair = st.lists(number, min_size=2, max_size=2, unique_by=float).map(sorted)
    ranges = st.builds(lambda ends, log: {"low": ends[0], "high": ends[1], "log": log}, pair, st.booleans())
    return number | ranges | st.lists(number, min_size=1, max_size=5, unique_by=float)


OPTION = st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
STUDIES = st.fixed_dictionaries(
    {
        "name": st.text(min_size=1, max_size=200).filter(str.isprintable),
        "trials": st.integers(1, 1000),
        "data": st.fixed_dictionaries(
            {"set": st.sampled_from(["mnist", "cifar10"]), "minority": st.integers(1, 900)},
            optional={"validation": st.floats(0, 0.5, exclude_min=True)},
        ),
        "network": st.fixed_dictionaries({"widths": st.lists(st.integers(1, 512), min_size=1, max_size=5)}),
        "training": st.fixed_dictionaries(
            {
                "epochs": st.integers(1, 100),
                "batch": st.integers(1, 1000),
                "learning_rate": st.floats(0, 1e9, exclude_min=True),
            },
            optional={
                "drops": st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), unique=True).map(sorted),
                "precision": st.sampled_from(["auto", "float32"]),
            },
        ),
        "space": st.fixed_dictionaries(
            {"lambda": _reals(1), "sigma": _reals(1.7e308), "n_centers": _parameter(st.integers(1, 1000))}
        ),
        "sampler": st.dictionaries(
            st.text(max_size=8).filter(str.isidentifier).filter(lambda key: key not in ("kind", "seed")),
            OPTION | st.lists(OPTION, max_size=3) | st.text().filter(str.isprintable),
            max_size=3,
        ),
    },
    optional={"seed": st.integers(0, 2**32 - 1)},
)


@settings(max_examples=150, deadline=None)
@given(STUDIES)
def test_round_trips(raw: dict[str, Any]) -> None:
    spec = StudySpec.from_dict(raw)
    through_json = json.loads(json.dumps(spec.to_dict(), allow_nan=False))
    assert through_json == spec.to_dict()
    assert StudySpec.from_dict(through_json) == spec
    assert StudySpec.from_dict(tomllib.loads(spec.to_toml())) == spec


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PATHS = ["name", "trials", "data", "data.set", "network.widths", "training.drops", "training.epochs", "odd"]
PATHS += ["space", "space.sigma", "space.sigma.low", "space.sigma.log", "space.n_centers", "sampler", "sampler.x"]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(PATHS), JUNK, max_size=4))
def test_no_junk_is_a_traceback(junk: dict[str, Any]) -> None:
    # Whole tables last: a key below one of junk cannot be set.
    ordered = dict(sorted(junk.items(), key=lambda item: -item[0].count(".")))
    try:
        StudySpec.from_dict(changed(ordered))
        mistakes = ["none"]
    except StudyFileError as error:
        mistakes = error.mistakes
    assert mistakes
    assert all(line.isprintable() for line in mistakes)
