"""A space that is too narrow is seen by its best trials."""

import json
from typing import Any

import pytest
from conftest import Cli
from making import make, open_study, worker_for

from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.places.claims import Places
from affinity_search.storage.results.bounds import crowded_bounds
from affinity_search.storage.study import StoredStudy

SPACE = (
    "space={lambda={low=0.01,high=1.0},sigma={low=10,high=100,log=true},n_centers={low=1,high=30}}",
    "sampler.kind=random",
)
MIDDLE = {"lambda": 0.5, "sigma": 30.0, "n_centers": 12}


def study_with(backend: Backend, params: list[dict[str, Any]]) -> StoredStudy:
    """Complete places of these parameters, the first the best."""
    study = make(backend, trials=len(params), overrides=SPACE)
    places, worker = Places.of(study), worker_for(study)
    for number, chosen in enumerate(params):
        claim = places.claim(worker.holder)
        assert claim is not None
        places.begin(claim, number, MIDDLE | chosen)
        places.finish(claim, PlaceState.COMPLETE, value=0.1 * (number + 1))
    return study


def texts(study: StoredStudy) -> list[str]:
    return [crowded.text for crowded in crowded_bounds(study)]


def test_the_article_s_own_search_would_have_been_told(sqlite: Backend) -> None:
    """Its best two σ were 90.7 and 77.6 of 10 to 100."""
    study = study_with(sqlite, [{"sigma": 90.7}, {"sigma": 91.0}, {"sigma": 99.0}, {}, {}])
    assert texts(study) == [
        "3 of the 5 best trials lie within 5 % of sigma's high bound 100: "
        "widen it with --set 'space.sigma={low=10, high=320, log=true}'"
    ]


def test_what_is_advised_can_be_done(sqlite: Backend) -> None:
    study = study_with(sqlite, [{"sigma": 10.0, "n_centers": 30}] * 5)
    edits = [crowded.edit for crowded in crowded_bounds(study)]
    assert edits == ["space.sigma={low=3.2, high=100, log=true}", "space.n_centers={low=1, high=44, log=false}"]
    widened, _ = open_study(sqlite, "tiny", overrides=[edit for edit in edits if edit])
    assert texts(widened) == [], "in the wider space they lie in the middle"


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (
            {"n_centers": 1},
            "5 of the 5 best trials lie within 5 % of n_centers's low bound 1; the range cannot be wider there",
        ),
        (
            {"lambda": 1.0},
            "5 of the 5 best trials lie within 5 % of lambda's high bound 1; the range cannot be wider there",
        ),
    ],
)
def test_a_bound_that_is_the_parameter_s_own(sqlite: Backend, params: dict[str, Any], expected: str) -> None:
    assert texts(study_with(sqlite, [params] * 5)) == [expected]


def test_lambda_goes_down_by_half(sqlite: Backend) -> None:
    (crowded,) = crowded_bounds(study_with(sqlite, [{"lambda": 0.011}] * 5))
    assert crowded.edit == "space.lambda={low=0.005, high=1, log=false}"


def test_only_the_best_tenth_counts_and_four_are_too_few(sqlite: Backend) -> None:
    assert texts(study_with(sqlite, [{}] * 3 + [{"sigma": 99.0}] * 57)) == [
        "3 of the 6 best trials lie within 5 % of sigma's high bound 100: "
        "widen it with --set 'space.sigma={low=10, high=320, log=true}'"
    ]


def test_four_are_too_few(sqlite: Backend) -> None:
    assert texts(study_with(sqlite, [{"sigma": 99.0}] * 4)) == []


def test_status_says_so(sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
    study = study_with(sqlite, [{"sigma": 99.0}] * 5)
    assert texts(study)[0] in cli("status", "tiny", "--storage", sqlite_url).out
    assert json.loads(cli("status", "tiny", "--storage", sqlite_url, "--json").out)["bounds"] == texts(study)
