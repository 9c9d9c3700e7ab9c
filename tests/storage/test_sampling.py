"""What a place is given to train: its sampler's proposal, and the same again on a later attempt."""

import warnings

import pytest
from making import attempt_at, make, train, trained, worker_for
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import RandomSampler, TPESampler
from sqlalchemy import event

from affinity_search.storage.database.backend import Backend
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts
from affinity_search.storage.trials.sampling import make_pruner, make_sampler
from affinity_search.storage.trials.seeds import trial_seed
from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.model.spec import PrunerSpec, SamplerSpec

CONSTANTS = ("space.lambda=0.5", "space.sigma=90", "space.n_centers=3")
CHOICES = ("space.lambda=[0.25, 0.5]", "space.sigma=[10, 100, 1000]", "space.n_centers=[1, 5, 10]")
RANGES = ("sampler.kind=random",)


def proposals(study: StoredStudy) -> list[tuple[int, tuple[float | int, ...], int]]:
    """(place, parameters, seed) of every trial."""
    return sorted(
        (TrialFacts.of(t).place, tuple(t.params.values()), TrialFacts.of(t).seed) for t in study.optuna.get_trials()
    )


def given_back(study: StoredStudy, times: int = 1) -> None:
    """The first place is begun and given back again."""
    worker = worker_for(study)
    for _ in range(times):
        claim = worker.places.claim(worker.holder)
        assert claim is not None
        attempt_at(study, claim, worker.holder).give_back("a test")


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_equal_studies_propose_equally_and_their_places_differ(sqlite: Backend, kind: str) -> None:
    one, two = (trained(sqlite, name, 12, [f"sampler.kind={kind}"]) for name in ("one", "two"))
    assert proposals(one) == proposals(two)
    assert len({params for _, params, _ in proposals(one)}) == 12
    assert [seed for *_, seed in proposals(one)] == [trial_seed(0, place) for place in range(12)]


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_a_place_s_first_proposal_does_not_depend_on_who_asks(sqlite: Backend, kind: str) -> None:
    """Several workers with one place each propose what one worker proposes: none repeats another's point."""
    one, many = (make(sqlite, name, 6, [f"sampler.kind={kind}"]) for name in ("one", "many"))
    train(one)
    while train(many, most=1):
        pass
    assert proposals(one) == proposals(many)


def test_a_proposal_reads_the_study_once(backend: Backend) -> None:
    """With a large team most of a trial's service is the reading of trials that others train."""
    study = make(backend, "one", 12, ["sampler={kind='tpe', n_startup_trials=2}"])
    train(study, most=4)
    others = worker_for(study)
    claims = [others.places.claim(others.holder) for _ in range(3)]
    begun = [attempt_at(study, claim, others.holder) for claim in claims[:2] if claim is not None]
    assert len(begun) == 2
    assert claims[2] is not None
    statements: list[str] = []
    event.listen(study.backend.rdb.engine, "before_cursor_execute", lambda *seen: statements.append(seen[2]))
    attempt_at(study, claims[2], others.holder)
    read = [one for one in statements if "FROM trial_intermediate_values" in one]
    assert len(read) == 2, read  # those that others train, and in the end the new trial


def test_the_study_s_seed_changes_every_proposal(sqlite: Backend) -> None:
    one, two = (trained(sqlite, name, 4, ["sampler.kind=random", f"seed={name}"]) for name in ("1", "2"))
    assert {p for _, p, _ in proposals(one)}.isdisjoint(p for _, p, _ in proposals(two))
    assert {s for *_, s in proposals(one)}.isdisjoint(s for *_, s in proposals(two))


def test_a_space_of_constants_repeats_with_other_seeds(sqlite: Backend) -> None:
    found = proposals(trained(sqlite, overrides=CONSTANTS))
    assert {params for _, params, _ in found} == {(0.5, 90.0, 3)}
    assert len({seed for *_, seed in found}) == 4


def test_softmax_has_nothing_to_propose_and_repeats_with_other_seeds(sqlite: Backend) -> None:
    found = proposals(trained(sqlite, overrides=["network.head=softmax", "space=none"]))
    assert {params for _, params, _ in found} == {()}
    assert len({seed for *_, seed in found}) == 4


@pytest.mark.parametrize("space", [RANGES, CHOICES, CONSTANTS])
def test_a_later_attempt_trains_the_same(backend: Backend, space: tuple[str, ...]) -> None:
    study = make(backend, trials=1, overrides=space)
    given_back(study, times=2)
    train(study)
    first, second, third = study.optuna.get_trials()
    assert first.params == second.params == third.params
    assert TrialFacts.of(first).seed == TrialFacts.of(third).seed
    (row,) = worker_for(study).places.rows()
    assert row.params == third.params
    assert isinstance(row.params["n_centers"], int)


def test_a_later_attempt_keeps_its_parameters_after_others_and_in_a_wider_space(sqlite: Backend) -> None:
    study = make(sqlite, trials=3, overrides=CONSTANTS)
    given_back(study)
    widened = ["space.lambda={low=0.1,high=0.9}", "space.sigma={low=1,high=1000}", "space.n_centers={low=1,high=10}"]
    study = make(sqlite, trials=3, overrides=widened)
    train(study)
    (_, first, _), (_, again, _), (_, other, _), *_ = proposals(study)
    assert first == again == (0.5, 90.0, 3)
    assert other != first, "the other places see the wider space"


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("median", MedianPruner),
        ("hyperband", HyperbandPruner),
        ("halving", SuccessiveHalvingPruner),
        ("none", NopPruner),
    ],
)
def test_each_pruner(kind: str, made: type) -> None:
    assert type(make_pruner(PrunerSpec(kind=kind), epochs=9)) is made


def test_each_sampler_takes_its_options_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert type(make_sampler(SamplerSpec(kind="random"), 0)) is RandomSampler
        options = {"kind": "tpe", "n_startup_trials": 3, "multivariate": True, "group": True}
        assert type(make_sampler(SamplerSpec.model_validate(options), 0)) is TPESampler


def test_options_that_optuna_does_not_take_are_refused_before_anything_is_stored(sqlite: Backend) -> None:
    with pytest.raises(StudyFileError, match=r"sampler.n_startup: unknown key; did you mean n_startup_trials\?"):
        make(sqlite, overrides=["sampler.n_startup=3"])
    with pytest.raises(StudyFileError, match=r"pruner: Number of startup trials cannot be negative"):
        make(sqlite, overrides=["pruner.kind=median", "pruner.n_startup_trials=-4"])
    assert sqlite.optuna.get_all_studies() == []


def test_the_median_pruner_stops_the_worse_half(sqlite: Backend) -> None:
    pruner = ["pruner.kind=median", "pruner.n_startup_trials=2", "pruner.n_warmup_steps=0", "training.epochs=3"]
    study = trained(sqlite, trials=12, overrides=pruner)
    counts = worker_for(study).places.counts()
    assert counts.pruned >= 2
    assert counts.pruned + counts.complete == counts.used == 12
    ends = {t.state.name for t in study.optuna.get_trials()}
    assert ends == {"COMPLETE", "PRUNED"}
