"""A stored study: created once, continued by whoever comes, refused where its scores would change their meaning."""

import re
from pathlib import Path

import optuna
import pytest
from conftest import Cli, Together
from making import ARTICLE, TINY, make, open_study, trained
from sqlalchemy import select

from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.optuna_storage.rdb import insert_study
from affinity_search.storage.errors import SmallerBudgetError, StorageError, StudyMismatchError, StudyNotFoundError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.study import find_study, history, load_study, study_names, study_tokens
from affinity_search.studies.errors import StudyFileError


def texts(backend: Backend, name: str = "tiny") -> list[str]:
    return [event["text"] for event in history(load_study(backend, name))]


def change(backend: Backend, *overrides: str, trials: int | None = None) -> list[str]:
    return open_study(backend, "tiny", overrides=overrides, trials=trials)[1]


class TestCreation:
    def test_what_is_stored_is_what_was_given(self, backend: Backend) -> None:
        study, notes = open_study(backend, TINY, trials=7)
        assert notes == ["created study 'tiny' with 7 places"]
        loaded = load_study(backend, "tiny")
        assert loaded.spec == study.spec
        assert (loaded.spec.trials, loaded.spec.training.epochs, loaded.token) == (7, 2, study.token)
        assert texts(backend) == ["7 places, protocol holdout"]
        assert study_names(backend) == ["tiny"]

    def test_four_processes_create_one_study(self, backend: Backend, database_url: str, together: Together) -> None:
        tokens = together("create_study", database_url, ["-"] * 4)
        assert len(set(tokens)) == 1
        assert study_tokens(backend) == [("tiny", tokens[0])]
        assert Places.of(load_study(backend, "tiny")).counts().total == 4

    def test_the_protocol_stands_beside_every_score_in_optuna(self, backend: Backend) -> None:
        make(backend)
        make(backend, "flattered", overrides=ARTICLE)
        for name, protocol in (("tiny", "holdout"), ("flattered", "article")):
            study = load_study(backend, name)
            assert study.optuna.metric_names == [f"1 - macro F1 ({protocol})"]
            assert study.optuna.user_attrs["protocol"] == protocol

    def test_a_creation_that_was_cut_off_leaves_nothing(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die(*arguments: object) -> None:
            insert_study(*arguments)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("affinity_search.storage.stored.creation.insert_study", die)
            with pytest.raises(KeyboardInterrupt):
                open_study(backend, "digits", trials=3)
        assert backend.optuna.get_all_studies() == []
        with backend.engine.connect() as connection:
            for table in (tables.studies, tables.places, tables.events):
                assert connection.execute(select(table)).all() == []
        study, notes = open_study(backend, "digits", trials=3)
        assert notes[0] == "created study 'digits' with 3 places"
        assert study.optuna.metric_names == ["1 - macro F1 (holdout)"]
        assert study.optuna.directions == [optuna.study.StudyDirection.MINIMIZE]

    def test_somebody_else_s_empty_study_is_not_taken_over(self, backend: Backend) -> None:
        theirs = optuna.create_study(study_name="digits", storage=backend.optuna)
        theirs.set_user_attr("protocol", "mine")
        with pytest.raises(StorageError, match=r"did not make; choose another name with --name; it is empty"):
            open_study(backend, "digits", trials=3)
        assert optuna.load_study(study_name="digits", storage=backend.optuna).user_attrs == {"protocol": "mine"}
        assert study_names(backend) == []

    def test_a_deleted_study_s_name_is_free_and_its_places_are_gone(self, backend: Backend) -> None:
        old = trained(backend)
        optuna.delete_study(study_name="tiny", storage=backend.optuna)
        assert find_study(backend, "tiny") is None
        new = make(backend, trials=2)
        assert new.token != old.token
        assert Places.of(new).counts().free == 2
        assert texts(backend) == ["2 places, protocol holdout", "settled as float32"]

    def test_a_study_that_is_not_there(self, backend: Backend) -> None:
        with pytest.raises(StudyNotFoundError, match="it holds none"):
            load_study(backend, "tiny")
        make(backend)
        with pytest.raises(StudyNotFoundError, match=r"no study 'tinny' in .*; it holds tiny"):
            load_study(backend, "tinny")
        with pytest.raises(
            StudyNotFoundError, match=r"'tinny' is neither .* bundled studies: .*digits.* studies in .* tiny"
        ):
            open_study(backend, "tinny")

    def test_a_definition_that_was_cleared_by_hand(self, sqlite: Backend) -> None:
        study = make(sqlite)
        with sqlite.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM affinity_studies")
        with pytest.raises(StorageError, match=f"the definition of study {study.token} is missing"):
            load_study(sqlite, "tiny")


class TestWhichStudyIsMeant:
    def test_a_stored_study_goes_before_a_bundled_one(self, sqlite: Backend) -> None:
        open_study(sqlite, TINY, name="digits", trials=3)
        study, notes = open_study(sqlite, "digits")
        assert (study.spec.training.epochs, study.spec.trials, notes) == (2, 3, [])

    def test_a_stored_study_is_a_template_for_another(self, sqlite: Backend) -> None:
        make(sqlite)
        study, _ = open_study(sqlite, "tiny", name="second", trials=2)
        assert (study.name, study.spec.training.epochs, study.spec.trials) == ("second", 2, 2)

    def test_a_path_reads_the_file(self, sqlite: Backend, tmp_path_factory: pytest.TempPathFactory) -> None:
        path = tmp_path_factory.mktemp("files") / "mine.toml"
        path.write_text(make(sqlite).spec.to_toml().replace('"tiny"', '"from the file"'))
        assert open_study(sqlite, str(path))[0].name == "from the file"
        assert open_study(sqlite, str(path), name="renamed")[0].name == "renamed"

    def test_malformed_overrides_of_a_stored_study(self, sqlite: Backend) -> None:
        make(sqlite)
        with pytest.raises(StudyFileError, match="not understood"):
            change(sqlite, "epochs")


class TestContinuing:
    def test_the_same_again_changes_nothing(self, backend: Backend) -> None:
        make(backend)
        before = texts(backend)
        _, notes = open_study(backend, TINY, trials=4)
        assert (notes, texts(backend)) == ([], before)

    def test_more_places_are_added_and_logged(self, backend: Backend) -> None:
        trained(backend)
        assert change(backend, trials=6) == ["places raised from 4 to 6"]
        study = load_study(backend, "tiny")
        counts = Places.of(study).counts()
        assert (study.spec.trials, counts.complete, counts.free) == (6, 4, 2)
        assert texts(backend)[-1] == "places raised from 4 to 6"

    def test_fewer_places_are_refused(self, backend: Backend) -> None:
        make(backend)
        with pytest.raises(SmallerBudgetError, match=r"has 4 places \(0 used, 4 free\), and places are never"):
            change(backend, trials=2)
        assert load_study(backend, "tiny").spec.trials == 4

    @pytest.mark.parametrize("source", [TINY, "digits"])
    def test_a_budget_grows_only_on_request(self, source: str, backend: Backend) -> None:
        open_study(backend, source, name="q", trials=3)
        open_study(backend, source, name="q", overrides=["sampler.kind=random"])
        assert load_study(backend, "q").spec.trials == 3
        assert open_study(backend, source, name="q", overrides=["trials = 5"])[0].spec.trials == 5
        assert open_study(backend, source, name="q", trials=6)[0].spec.trials == 6

    def test_a_file_with_another_number_is_told(self, sqlite: Backend) -> None:
        open_study(sqlite, TINY, trials=3)
        _, notes = open_study(sqlite, TINY)
        assert [note for note in notes if "--trials N adds places" in note] == notes[:1] != []

    def test_a_bundled_name_continues_the_study_as_it_was_stored(self, sqlite: Backend) -> None:
        first, _ = open_study(
            sqlite, "digits", name="q", trials=3, overrides=["training.epochs=2", "sampler.kind=random"]
        )
        again, notes = open_study(sqlite, "digits", name="q")
        assert (again.spec, notes) == (first.spec, [])

    def test_but_not_one_of_other_data(self, sqlite: Backend) -> None:
        open_study(sqlite, "digits", name="q", trials=3)
        with pytest.raises(StudyMismatchError, match=r"data\.set: stored digits, given mnist"):
            open_study(sqlite, "mnist", name="q")

    def test_a_suffix_in_capitals_is_a_study_file(self, sqlite: Backend, tmp_path: Path) -> None:
        path = tmp_path / "Mine.TOML"
        path.write_text(Path(TINY).read_text().replace('name = "tiny"', ""))
        assert open_study(sqlite, str(path))[0].name in ("Mine", "tiny")

    def test_a_name_of_an_older_version_goes_on(self, sqlite: Backend) -> None:
        study = make(sqlite)
        with sqlite.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE studies SET study_name = '-lead'")
        again, _ = open_study(sqlite, "-lead", trials=5)
        assert (again.token, again.name, again.spec.trials) == (study.token, "-lead", 5)

    @pytest.mark.parametrize(
        ("override", "note"),
        [
            ("space.sigma.high=2000", r"sigma widened: .*1000.* → .*2000.*"),
            ("sampler.kind=random", r"sampler changed from tpe to random"),
            ("sampler.n_startup_trials=3", r"sampler changed from tpe to tpe \(n_startup_trials=3\)"),
            ("pruner.kind=hyperband", r"pruner changed from none to hyperband"),
        ],
    )
    def test_changes_that_keep_scores_comparable_are_accepted_and_logged(
        self, backend: Backend, override: str, note: str
    ) -> None:
        study = make(backend)
        (made,) = change(backend, override)
        assert re.fullmatch(note, made)
        assert texts(backend)[-1] == made
        loaded = load_study(backend, "tiny")
        assert loaded.spec != study.spec
        assert loaded.fingerprint == study.fingerprint
        assert change(backend, override) == [], "once"

    def test_a_change_of_meaning_is_refused_with_every_differing_line(self, backend: Backend) -> None:
        before = make(backend)
        with pytest.raises(StudyMismatchError) as refused:
            change(backend, "training.epochs=9", "data.minority=20", "seed=5", "space.sigma.high=10", trials=9)
        said = str(refused.value).splitlines()
        assert said[1:4] == [
            "  data.minority: stored 30, given 20",
            "  training.epochs: stored 2, given 9",
            "  seed: stored 0, given 5",
        ]
        assert said[4].startswith("  space.sigma: stored")
        assert "can only become wider" in said[4]
        assert said[-1].endswith("another name with --name.")
        after = load_study(backend, "tiny")
        assert after.spec == before.spec
        assert Places.of(after).counts().total == 4

    def test_a_study_opened_by_name_alone_is_taken_as_it_is(self, sqlite: Backend) -> None:
        """A worker that starts while somebody widens the space must not be refused, nor undo the change."""
        make(sqlite)
        stale = load_study(sqlite, "tiny")
        change(sqlite, "sampler.kind=random")
        study, notes = open_study(sqlite, "tiny")
        assert (study.spec.sampler.kind, notes) == ("random", [])
        assert stale.refreshed().spec == study.spec


class TestPrecision:
    def test_the_first_of_several_processes_settles_it(
        self, backend: Backend, database_url: str, together: Together
    ) -> None:
        study, _ = open_study(backend, TINY)
        assert study.precision is None
        settled = together("settle", database_url, ["float32", "mixed_bfloat16", "float32", "mixed_bfloat16"])
        assert len(set(settled)) == 1
        assert load_study(backend, "tiny").settled_precision == settled[0]
        assert texts(backend)[1:] == [f"settled as {settled[0]}"]

    def test_an_unsettled_one_is_asked_for_in_vain(self, sqlite: Backend) -> None:
        study, _ = open_study(sqlite, TINY)
        with pytest.raises(StorageError, match="has not been trained yet"):
            _ = study.settled_precision

    def test_asking_for_one_settles_it(self, sqlite: Backend) -> None:
        open_study(sqlite, TINY)
        assert change(sqlite, "training.precision=mixed_bfloat16") == ["precision settled as mixed_bfloat16"]
        study = load_study(sqlite, "tiny")
        assert study.precision == "mixed_bfloat16"
        assert change(sqlite, "training.precision=auto") == []

    def test_another_one_is_refused(self, sqlite: Backend) -> None:
        make(sqlite)
        with pytest.raises(StudyMismatchError, match=r"training\.precision: stored float32, given mixed_bfloat16"):
            change(sqlite, "training.precision=mixed_bfloat16")

    def test_a_study_file_that_names_one_has_it_at_once(self, sqlite: Backend) -> None:
        spec = ["training.precision=mixed_bfloat16"]
        assert open_study(sqlite, "digits", overrides=spec)[0].precision == "mixed_bfloat16"


def test_what_was_read_ahead_is_not_read_again(sqlite: Backend) -> None:
    study = trained(sqlite, trials=2)
    study = load_study(sqlite, study.name)
    study.read_ahead()
    with sqlite.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_values SET value = 0.125")
    kept = [trial.value for trial in study.optuna.get_trials(deepcopy=False)]
    assert len(kept) == 2
    assert 0.125 not in kept
    assert [trial.value for trial in load_study(sqlite, study.name).optuna.get_trials()] == [0.125, 0.125]


def test_the_command_says_what_differs_without_a_traceback(sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
    make(sqlite)
    ran = cli("launch", "tiny", "--set", "training.epochs=3", "--storage", sqlite_url, fails=True)
    assert ran.code == 1
    assert "training.epochs: stored 2, given 3" in ran.err
    assert "Traceback" not in ran.err
