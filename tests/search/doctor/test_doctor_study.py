"""`doctor STUDY`: the living, the lost, the half-ended and the failed are told apart; --repair mends the right ones."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Ran, Start
from making import holder, make, trained
from optuna.trial import TrialState
from waiting import until

from affinity_search.search.doctor.repair import Repair
from affinity_search.search.doctor.study import examine
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import Cause, PlaceState
from affinity_search.storage.files import StudyFiles
from affinity_search.storage.places.claims import Claim, Holder, Places
from affinity_search.storage.places.leases import LeaseKeeper
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.proposing import ask
from affinity_search.storage.trials.record import describe_trial, end_trial

LEASE_S = 0.3


@pytest.fixture
def study(backend: Backend) -> StoredStudy:
    return make(backend)


@pytest.fixture
def places(study: StoredStudy) -> Places:
    """Whose leases are soon over."""
    return Places.of(study, LEASE_S)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("affinity_search.search.doctor.study.SETTLE_S", 0.0)


def begun(study: StoredStudy, places: Places, who: Holder | None = None) -> tuple[Claim, int]:
    """A claimed place and its running trial, whose worker then falls silent."""
    who = who or holder()
    claim = places.claim(who)
    assert claim is not None
    trial = study.optuna.ask().number
    places.begin(claim, trial, {})
    describe_trial(study, trial, place=claim.number, attempt=claim.attempt, worker=who.worker)
    return claim, trial


def begins(study: StoredStudy, places: Places) -> Claim:
    """A claimed place whose row does not know its trial yet."""
    who = holder()
    claim = places.claim(who)
    assert claim is not None
    ask(study, claim, 0, who, {}, "0" * 16, ())
    return claim


def lost(study: StoredStudy, places: Places, who: Holder | None = None) -> tuple[Claim, int]:
    """The same, once its lease is over by the database's clock."""
    claim, trial = begun(study, places, who)
    until(lambda: study.backend.time() > places.rows()[claim.number].lease_until, "the end of the lease")
    return claim, trial


def dead_process() -> int:
    """The id of a process that has just ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def state(study: StoredStudy, trial: int) -> TrialState:
    return study.optuna.get_trials(deepcopy=False)[trial].state


class Doctor:
    """The command on one study, as a person and a program see it."""

    def __init__(self, cli: Cli, url: str, files: Path) -> None:
        self._cli = cli
        self._options = ("--storage", url, "--files", str(files))

    def __call__(self, *options: str, code: int = 0, study: str = "tiny") -> Ran:
        ran = self._cli("doctor", *options, *self._options, "--", study, fails=True)
        assert ran.code == code, ran
        return ran

    def found(self, *options: str, code: int = 0) -> dict[str, Any]:
        """The study's part of --json."""
        whole = json.loads(self("--json", *options, code=code).out)
        assert whole["exit_code"] == code
        return {"statuses": {check["name"]: check["status"] for check in whole["checks"]}} | whole["study"]


@pytest.fixture
def doctor(cli: Cli, database_url: str, tmp_path: Path) -> Doctor:
    return Doctor(cli, database_url, tmp_path / "files")


@pytest.fixture
def files(study: StoredStudy, tmp_path: Path) -> StudyFiles:
    """With a folder for checkpoints, as a first worker leaves it."""
    made = StudyFiles(tmp_path / "files", study.token)
    made.checkpoints.mkdir(parents=True)
    return made


class TestLooking:
    def test_a_living_worker(self, study: StoredStudy, doctor: Doctor) -> None:
        _, trial = begun(study, Places.of(study), Holder("a-worker", "a-host", 77, "a card"))
        found = doctor.found()
        (held,) = found["held"]
        assert held["renewed_s"] < 60
        assert held | {"renewed_s": 0} == {
            "place": 0, "attempt": 1, "trial": trial, "worker": "a-worker", "host": "a-host", "pid": 77,
            "device": "a card", "renewed_s": 0, "lease_s": 120.0, "state": "alive", "gone": False, "recovery": None,
        }  # fmt: skip
        assert found["statuses"]["places"] == "ok"
        shown = doctor().out
        assert "0 of 4 used, 3 free, 1 held, 1 of them by running workers" in shown
        assert "recovery" not in shown

    def test_a_lost_place_is_told_and_left_alone(
        self, study: StoredStudy, places: Places, doctor: Doctor, files: StudyFiles
    ) -> None:
        _, trial = lost(study, places)
        shown = doctor(code=3).out
        assert "its lease is over; recovery would free the place for attempt 2 of 3\n" in shown
        assert "start workers: affinity-search launch tiny" in shown
        assert doctor.found(code=3)["held"][0]["state"] == "lost"
        files.checkpoint(0).touch()
        assert "for attempt 2 of 3, which goes on from its checkpoint\n" in doctor(code=3).out
        assert places.rows()[0].state == PlaceState.HELD
        assert state(study, trial) == TrialState.RUNNING

    def test_the_last_attempt(self, study: StoredStudy, places: Places, doctor: Doctor, files: StudyFiles) -> None:
        for _ in range(2):
            claim, _ = begun(study, places)
            places.fail_attempt(claim, Cause.LOST, "gone")
        lost(study, places)
        files.checkpoint(0).touch()
        assert "recovery would spend the place: 3 of 3 attempts used\n" in doctor(code=3).out

    def test_a_process_of_this_host_that_is_gone(self, study: StoredStudy, places: Places, doctor: Doctor) -> None:
        """Its lease decides all the same: the number may mean another process in another container."""
        pid = dead_process()
        begun(study, Places.of(study), Holder("a-worker", socket.gethostname(), pid, "cpu"))
        (held,) = doctor.found()["held"]
        assert (held["state"], held["gone"]) == ("alive", True)
        shown = doctor().out
        assert f"place 0: process {pid} is gone, its lease ends in " in shown
        assert "1 held, but no worker runs" in shown
        assert places.rows()[0].state == PlaceState.HELD

    def test_only_this_host_s_processes_can_be_looked_for(self, study: StoredStudy, doctor: Doctor) -> None:
        begun(study, Places.of(study), Holder("a-worker", "elsewhere", dead_process(), "cpu"))
        begun(study, Places.of(study), Holder("another", socket.gethostname(), 1, "cpu"))
        assert [held["gone"] for held in doctor.found()["held"]] == [False, False]

    def test_every_place_used(self, backend: Backend, doctor: Doctor) -> None:
        trained(backend, "it's [bold]done[bold] :smile:")
        shown = doctor(study="it's [bold]done[bold] :smile:").out
        assert "4 of 4 used, 0 free, 0 held: the search is over" in shown
        assert """launch 'it'"'"'s [bold]done[bold] :smile:' --trials N""" in shown

    def test_nobody_works(self, study: StoredStudy, doctor: Doctor) -> None:
        assert "4 free, 0 held, no worker runs; start workers: affinity-search launch tiny" in doctor().out


class TestHalves:
    """The place's row is written, the trial's end is missing."""

    def half(self, doctor: Doctor, trial: int) -> str:
        (half,) = doctor.found(code=3)["halves"]
        assert half["trial"] == trial
        assert half["recovery"] in doctor(code=3).out
        return str(half["recovery"])

    def test_complete(self, study: StoredStudy, doctor: Doctor) -> None:
        places = Places.of(study)
        claim, trial = begun(study, places)
        places.finish(claim, PlaceState.COMPLETE, value=0.25)
        assert self.half(doctor, trial) == "close it as COMPLETE with the value 0.2500: as its place is"

    def test_pruned(self, study: StoredStudy, doctor: Doctor) -> None:
        places = Places.of(study)
        claim, trial = begun(study, places)
        places.finish(claim, PlaceState.PRUNED)
        assert self.half(doctor, trial) == "close it as PRUNED: as its place is"

    def test_a_place_that_went_on_without_it(self, study: StoredStudy, doctor: Doctor) -> None:
        places = Places.of(study)
        claim, trial = begun(study, places)
        places.give_back(claim, "asked to")
        begun(study, places)
        assert self.half(doctor, trial) == "close it as FAIL: its worker ended without closing it"

    def test_one_that_is_just_being_written(self, study: StoredStudy, monkeypatch: pytest.MonkeyPatch) -> None:
        places = Places.of(study)
        claim, trial = begun(study, places)
        places.finish(claim, PlaceState.PRUNED)
        monkeypatch.setattr(
            "affinity_search.search.doctor.study.time.sleep", lambda _: end_trial(study, trial, TrialState.PRUNED)
        )
        assert examine(study, None, settle_s=1.0).halves == ()

    def test_one_that_appears_meanwhile_may_be_being_written(
        self, study: StoredStudy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        places = Places.of(study)
        (first, trial), (second, _) = begun(study, places), begun(study, places)
        places.finish(first, PlaceState.PRUNED)
        monkeypatch.setattr(
            "affinity_search.search.doctor.study.time.sleep", lambda _: places.finish(second, PlaceState.PRUNED)
        )
        assert [half.trial for half in examine(study, None, settle_s=1.0).halves] == [trial]

    def test_a_worker_that_died_before_its_row_knew_the_trial(
        self, study: StoredStudy, places: Places, doctor: Doctor
    ) -> None:
        begins(study, places)
        until(lambda: study.backend.time() > places.rows()[0].lease_until, "the end of the lease")
        found = doctor.found(code=3)
        assert ([held["state"] for held in found["held"]], found["halves"]) == (["lost"], [])

    def test_a_worker_that_begins_is_none(self, study: StoredStudy, places: Places, doctor: Doctor) -> None:
        """It has its place and asks its sampler; only when it falls silent nobody will ever end the trial."""
        claim = begins(study, Places.of(study))
        assert doctor.found()["halves"] == []
        Places.of(study).give_back(claim, "asked to")
        assert doctor.found(code=3)["halves"] == [
            {"trial": 0, "place": 0, "recovery": "close it as FAIL: its worker ended without closing it"}
        ]


class TestFailures:
    def test_spent_places_with_their_attempts(self, study: StoredStudy, places: Places, doctor: Doctor) -> None:
        for number in range(3):
            claim, trial = begun(study, places, holder(f"worker-{number}"))
            if number < 2:
                describe_trial(study, trial, reason=f"card {number} fell off the bus")
            places.fail_attempt(claim, "bus", f"card {number} fell off the bus")
            end_trial(study, trial, TrialState.FAIL)
        found = doctor.found()
        assert found["statuses"]["failures"] == "warning"
        (spent,) = found["spent"]
        assert (spent["place"], spent["reason"]) == (0, "card 2 fell off the bus")
        assert spent["attempts"] == [
            {
                "trial": number,
                "attempt": number + 1,
                "ended": "FAIL",
                "reason": f"card {number} fell off the bus",
                "worker": f"worker-{number}",
            }
            for number in range(3)
        ]
        shown = doctor().out
        assert all(f"worker-{n}" in shown and f"card {n} fell off the bus" in shown for n in range(3))

    def test_many_are_not_all_shown(self, backend: Backend, doctor: Doctor) -> None:
        study = make(backend, trials=12)
        places = Places.of(study)
        for _ in range(12):
            claim, _ = begun(study, places)
            places.finish(claim, PlaceState.SPENT, reason="diverged")
        assert "and 2 more places; --json lists all" in doctor(code=3).out
        assert len(doctor.found(code=3)["spent"]) == 12

    def test_leftover_checkpoints(self, study: StoredStudy, doctor: Doctor, files: StudyFiles) -> None:
        places = Places.of(study)
        claim, trial = begun(study, places)
        places.finish(claim, PlaceState.PRUNED)
        end_trial(study, trial, TrialState.PRUNED)
        names = ["0.npz", "0.npz.1a2b3c4d", "1.npz", "notes.txt"]
        for name in names:
            (files.checkpoints / name).touch()
        assert doctor.found()["leftovers"] == [str(files.checkpoints / name) for name in names[:2]]
        assert "2 checkpoint files of used places left behind" in doctor().out
        assert doctor.found("--repair")["repaired"] == ["removed 2 checkpoint files of used places"]
        assert sorted(path.name for path in files.checkpoints.iterdir()) == names[2:]


class TestRepair:
    def test_without_a_study(self, cli: Cli, database_url: str) -> None:
        assert cli("doctor", "--repair", "--storage", database_url, fails=True).code == 2

    def test_a_lost_place(self, study: StoredStudy, places: Places, doctor: Doctor) -> None:
        _, trial = lost(study, places)
        ran = doctor("--repair")
        for said in ("watching for up to 0 s", "place 0: lease ended: here-", "after the repair:"):
            assert said in ran.err
        assert ran.out.index("recovery would free") < ran.out.index("4 free, 0 held")
        assert (places.rows()[0].state, places.rows()[0].attempt) == (PlaceState.FREE, 1)
        assert state(study, trial) == TrialState.FAIL
        assert "nothing to repair" in doctor("--repair").err

    def test_as_json(self, study: StoredStudy, places: Places, doctor: Doctor) -> None:
        lost(study, places)
        found = doctor.found("--repair")
        assert (found["held"], len(found["repaired"])) == ([], 1)

    def test_a_half(self, study: StoredStudy, doctor: Doctor) -> None:
        places = Places.of(study)
        claim, trial = begun(study, places)
        places.finish(claim, PlaceState.COMPLETE, value=0.25)
        assert "trial 0 closed as COMPLETE" in doctor("--repair").err
        assert state(study, trial) == TrialState.COMPLETE

    def test_a_process_that_is_gone(self, study: StoredStudy, places: Places, doctor: Doctor) -> None:
        """Its lease still runs when the watch begins."""
        longer = Places.of(study, 2.0)
        begun(study, longer, Holder("a-worker", socket.gethostname(), dead_process(), "cpu"))
        assert len(doctor.found("--repair")["repaired"]) == 1
        assert places.rows()[0].state == PlaceState.FREE

    def test_the_living_are_left_alone(self, study: StoredStudy, places: Places, doctor: Doctor) -> None:
        lost(study, places)
        living, trial = begun(study, Places.of(study))
        found = doctor.found("--repair")
        assert [held["place"] for held in found["held"]] == [living.number]
        assert found["repaired"][0].startswith("place 0: ")
        assert state(study, trial) == TrialState.RUNNING

    def test_a_worker_that_comes_back_keeps_its_place(self, study: StoredStudy, places: Places) -> None:
        """As after an outage: every lease is over, and every worker is about to renew its own."""
        claim, trial = lost(study, places)
        before = examine(study, None)
        assert before.lost
        until_s = places.rows()[0].lease_until
        with LeaseKeeper(places, claim) as keeper:
            until(lambda: places.rows()[0].lease_until > until_s, "the renewal")
            assert Repair(study, None, say=lambda line: None).mend(before) == []
            assert not keeper.lost
        assert state(study, trial) == TrialState.RUNNING

    def test_two_at_once(self, study: StoredStudy, places: Places, database_url: str, start: Start) -> None:
        _, trial = lost(study, places)
        both = [start("doctor", "tiny", "--repair", "--storage", database_url) for _ in range(2)]
        assert [one.ended() for one in both] == [0, 0]
        assert sum("place 0: lease ended" in one.said for one in both) == 1
        assert (places.rows()[0].state, places.rows()[0].attempt) == (PlaceState.FREE, 1)
        assert state(study, trial) == TrialState.FAIL
