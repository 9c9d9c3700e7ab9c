"""Warm starts: the first places of a study take the settings that its points give."""

from making import make, open_study, train

from affinity_search.search import api
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.places.claims import Places

FIRST = {"lambda": 0.25, "sigma": 40.0, "n_centers": 2}
POINTS = "points=[{ lambda = 0.25, sigma = 40, n_centers = 2 }, { sigma = 7 }]"


def test_the_first_places_take_the_points_and_the_others_are_sampled(sqlite: Backend) -> None:
    study, plain = make(sqlite, overrides=[POINTS]), make(sqlite, name="plain")
    assert train(study) == train(plain) == 4
    params, sampled = ({row.number: row.params for row in Places.of(each).best_rows(4)} for each in (study, plain))
    assert params[0] == FIRST
    assert params[1]["sigma"] == 7.0
    assert params[1].keys() == FIRST.keys(), "what a point leaves out is drawn"
    assert params[2] not in (FIRST, params[1])
    assert sampled[0] != FIRST


def test_a_study_that_is_continued_keeps_its_points(sqlite: Backend) -> None:
    make(sqlite, overrides=[POINTS])
    study, notes = open_study(sqlite, "tiny", overrides=["points=[]"])
    assert len(study.spec.points) == 2
    assert "the study keeps the points that it was created with" in notes


def test_the_best_of_a_stored_study_are_tried_first(sqlite: Backend) -> None:
    source = make(sqlite, name="source")
    train(source)
    best = [trial.params for trial in api.Study(source).best(2)]
    url = str(sqlite.url)
    study = make(sqlite, overrides=[api.points_of("source", url, top=2)])
    assert list(study.spec.points) == best
    train(study, most=2)
    assert [trial.params for trial in api.Study(study).trials()] == best
