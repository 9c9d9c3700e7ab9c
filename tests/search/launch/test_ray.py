"""Workers on a real Ray cluster of two nodes on this machine, one of which dies; their training is the fake one."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Start, Started
from making import TINY, make
from optuna.trial import TrialState
from waiting import until

from affinity_search.search.devices.nvidia import NoSuchDeviceError
from affinity_search.search.worker.exits import Exit
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.place import HeldPlace, Place
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.seeds import trial_seed

ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'affinity-search[ray]'")

from ray.cluster_utils import Cluster  # after the check that it is there

from affinity_search.search.launch import on_ray

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    """A cluster whose head has no room for workers, so that every other node may die."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        began = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        yield began
        began.shutdown()


@pytest.fixture
def cluster(head: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Two nodes with one core each."""
    while len(head.worker_nodes) < 2:
        head.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    return head


@pytest.fixture
def study(sqlite: Backend) -> StoredStudy:
    return make(sqlite, trials=6)


def rows(study: StoredStudy, *states: PlaceState) -> list[Place]:
    return Places.of(study).rows(*states)


def waiting(study: StoredStudy) -> list[HeldPlace]:
    """Rows of the held places whose trial has reported an epoch and waits at the gate."""
    reported = {t.number for t in study.optuna.get_trials(deepcopy=False) if t.intermediate_values}
    return [row for row in Places.of(study).held() if row.trial in reported]


def launched(start: Start, url: str, tmp_path: Path) -> Started:
    return start("launch", "tiny", "--on", "ray", AFFINITY_SEARCH_STORAGE=url, FAKE_GATE=str(tmp_path / "gate"))


def node_of(cluster: Cluster, pid: int) -> Any:
    """The node on which a worker runs: the raylet among its process' ancestors."""
    import psutil

    ancestors = {process.pid for process in psutil.Process(pid).parents()}
    (node,) = [node for node in cluster.list_all_nodes() if raylet_pid(node) in ancestors]
    return node


def raylet_pid(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def test_a_node_dies_and_every_place_is_used_once(
    cluster: Cluster, study: StoredStudy, sqlite_url: str, start: Start, tmp_path: Path
) -> None:
    launch = launched(start, sqlite_url, tmp_path)
    until(lambda: len(waiting(study)) == 2, "two trials to wait at the gate", 120)
    victim = waiting(study)[0]
    cluster.remove_node(node_of(cluster, victim.pid), allow_graceful=False)
    until(lambda: f"worker {victim.worker} died" in launch.said, "the launcher to notice", 120)
    assert "lost with its Ray node" in launch.said
    cluster.add_node(num_cpus=1)
    until(lambda: len(waiting(study)) == 2, "the place to be taken up on the new node", 120)
    again = {row.number: row for row in waiting(study)}[victim.number]
    assert (again.attempt, again.params) == (2, victim.params)
    assert again.worker != victim.worker
    (tmp_path / "gate").touch()
    assert launch.ended(120) == 0
    assert [row.state for row in rows(study)] == [PlaceState.COMPLETE] * 6
    states = sorted(trial.state.name for trial in study.optuna.trials)
    assert states == [TrialState.COMPLETE.name] * 6 + [TrialState.FAIL.name]
    assert "6 of 6 trials done: 6 complete, 0 pruned, 0 failed; 0 running; 7 attempts" in launch.said
    logs = Path(re.search(r"logs in (\S+)", launch.said)[1])
    assert "2 workers on ray-cpu, ray-cpu" in launch.said
    assert any("trials ended" in log.read_text() for log in logs.iterdir())


def test_who_waits_for_room_leaves_when_the_others_have_done_all(
    cluster: Cluster, study: StoredStudy, sqlite_url: str, start: Start, tmp_path: Path
) -> None:
    launch = launched(start, sqlite_url, tmp_path)
    until(lambda: len(waiting(study)) == 2, "two trials to wait at the gate", 120)
    cluster.remove_node(node_of(cluster, waiting(study)[0].pid), allow_graceful=False)
    until(lambda: "lost with its Ray node" in launch.said, "the launcher to notice", 120)
    (tmp_path / "gate").touch()
    assert launch.ended(120) == 0
    assert [row.state for row in rows(study)] == [PlaceState.COMPLETE] * 6


def test_stopping_gives_the_places_back(
    cluster: Cluster, study: StoredStudy, sqlite_url: str, start: Start, tmp_path: Path
) -> None:
    launch = launched(start, sqlite_url, tmp_path)
    until(lambda: len(waiting(study)) == 2, "two trials to wait at the gate", 120)
    launch.process.terminate()
    launch.ended(60)
    assert rows(study, PlaceState.HELD) == []
    assert len(rows(study, PlaceState.FREE)) == 6


def test_a_gpu_without_room_is_given_up(cluster: Cluster, study: StoredStudy, sqlite_url: str, start: Start) -> None:
    """The exit code of a worker on a node means what it means here; Ray believes that this node has a GPU."""
    node = cluster.add_node(num_cpus=1, num_gpus=1)
    full = {"FAKE_FULL": " ".join(str(trial_seed(0, place)) for place in range(6))}
    launch = start("launch", "tiny", "--on", "ray", "--devices", "gpu", AFFINITY_SEARCH_STORAGE=sqlite_url, **full)
    try:
        assert launch.ended(120) == Exit.OUT_OF_MEMORY
    finally:
        cluster.remove_node(node)
    last = launch.said.splitlines()[-1]
    assert last == "error: ray-gpu ran out of memory twice: the fake card is full", launch.said
    assert [row.state for row in rows(study)] == [PlaceState.FREE] * 6


def test_another_word(sqlite_url: str, cli: Cli) -> None:
    line = cli("launch", TINY, "--on", "spark", "--storage", sqlite_url, fails=True).err.splitlines()[-1]
    assert line == "error: --on spark given; allowed: ray, or ray://HOST:PORT for a cluster elsewhere"


def test_nothing_listens(sqlite_url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    for address, shown in (("ray", "127.0.0.1:1"), ("ray://127.0.0.1:2", "ray://127.0.0.1:2")):
        line = cli("launch", TINY, "--on", address, "--storage", sqlite_url, fails=True).err.splitlines()[-1]
        assert line.startswith(f"error: nothing listens at {shown} ([Errno 111]"), line


def test_no_cluster(sqlite_url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nmore")

    monkeypatch.setattr(ray, "init", refuse)
    line = cli("launch", TINY, "--on", "ray", "--storage", sqlite_url, fails=True).err.splitlines()[-1]
    assert line == (
        "error: no Ray cluster at ray (Could not find any running Ray instance.); start one with: ray start --head"
    )


class TestPlan:
    @pytest.fixture
    def nodes(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        there: list[dict[str, Any]] = []
        monkeypatch.setattr(on_ray, "_nodes", lambda: there)
        return there

    def test_cpu_workers_have_the_same_threads_everywhere(self, nodes: list[dict[str, Any]]) -> None:
        nodes += [{"Resources": {"CPU": 8.0}}, {"Resources": {"CPU": 3.0}}, {"Resources": {"CPU": 0.0}}]
        assert [slot.threads for slot in on_ray.plan("auto", None)] == [4, 4]
        assert [slot.threads for slot in on_ray.plan("cpu", 1)] == [8]
        slots = on_ray.plan("cpu", 3)
        assert [(slot.device, slot.threads, slot.resources) for slot in slots] == [("cpu", 3, {"num_cpus": 3})] * 3

    def test_gpus_and_tpus(self, nodes: list[dict[str, Any]]) -> None:
        nodes += [{"Resources": {"CPU": 8.0, "GPU": 2.0}}, {"Resources": {"CPU": 8.0}}]
        assert [slot.resources for slot in on_ray.plan("auto", None)] == [{"num_gpus": 1}] * 2
        nodes += [{"Resources": {"CPU": 8.0, "TPU": 4.0}}]
        assert [slot.resources for slot in on_ray.plan("tpu", None)] == [{"resources": {"TPU": 4}}]

    @pytest.mark.parametrize(("devices", "workers"), [("gpu", None), ("cpu", 9), ("gpu:0", None), ("toaster", 1)])
    def test_what_is_not_there(self, nodes: list[dict[str, Any]], devices: str, workers: int | None) -> None:
        nodes += [{"Resources": {"CPU": 8.0}}]
        with pytest.raises(NoSuchDeviceError, match=r"room for 0|room for 8|allowed with --on ray"):
            on_ray.plan(devices, workers)


def test_the_launcher_hands_over_no_url_in_arguments(sqlite: Backend) -> None:
    worker = on_ray.RayWorker(on_ray.RaySlot("ray-cpu", "cpu", 1, {}), Path(os.devnull).parent)
    assert sqlite.secret_url not in " ".join(worker.new_command())
