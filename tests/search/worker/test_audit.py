"""Audited pruning of real trainings on the digits."""

from making import holder, make

from affinity_search.search import devices

DEVICE = devices.configure("cpu", 2)

from affinity_search.search.worker.loop import Worker  # the device comes first
from affinity_search.search.worker.study_trainer import StudyTrainer
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.files import StudyFiles, default_root
from affinity_search.storage.places.claims import Places
from affinity_search.storage.results.pruning import pruning_of
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts
from affinity_search.storage.trials.seeds import is_audited

TRAINED = ("training.epochs=3", "sampler.kind=random")
# It stops every trial after its second epoch.
ALL = ("pruner.kind=halving", "pruner.min_resource=1", "pruner.bootstrap_count=1000", "pruner.audit=0.8")


def searched(study: StoredStudy) -> StoredStudy:
    files = StudyFiles(default_root(study.backend.url), study.token)
    trainer = StudyTrainer(DEVICE, study.spec, "float32", None)
    worker = Worker(study, holder(), trainer, Places.of(study), {"python": "3"}, files)
    while claim := worker.places.claim(worker.holder):
        worker.run(claim, lambda: False)
    return study


def test_an_audited_trial_ends_as_it_would_without_a_pruner(sqlite: Backend) -> None:
    audited = [place for place in range(6) if is_audited(0, place, 0.8)]
    assert len(audited) == 5, "one is pruned"
    study = searched(make(sqlite, "pruned", trials=6, overrides=[*TRAINED, *ALL]))
    free = searched(make(sqlite, "free", trials=6, overrides=TRAINED))
    for row, other in zip(Places.of(study).rows(), Places.of(free).rows(), strict=True):
        facts = TrialFacts.of(study.optuna.trials[row.number])
        assert facts.scores is not None
        if row.number in audited:
            assert (row.state, row.value) == (PlaceState.COMPLETE, other.value)
            assert (facts.audited_after, facts.scores.epochs) == (2, 3)
        else:
            assert (row.state, facts.audited_after, facts.scores.epochs) == (PlaceState.PRUNED, None, 2)
    found = pruning_of(study)
    assert (found.stopped, found.epochs_saved, found.audited, found.epochs_cost) == (1, 1, 5, 5)
    assert (found.best_tenth, found.among_best) == (1, 1)
