"""Several processes that do the same thing to a database at the same moment.

They are forked from a process that has imported everything: all of them begin at a barrier, within microseconds of
each other, and each prints its result as a line of JSON.
"""

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from typing import Any

from warm import ADDRESS, Warm

TIMEOUT_S = 120


def together(address: str, action: str, url: str, arguments: list[str]) -> list[Any]:
    """Let one process for each argument do `action` at once; returns their results in no particular order."""
    environment = os.environ | {"CONTENDER_URL": url, ADDRESS: address}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        done = Warm(["", "-P", "-m", "contender", action, *arguments], stdout=out, stderr=errors, env=environment)
        code = done.wait(TIMEOUT_S)
        for file in (out, errors):
            file.seek(0)
        assert code == 0, errors.read().decode()
        return [json.loads(line) for line in out.read().splitlines()]


def open_fresh(url: str, argument: str) -> Any:
    from affinity_search.storage.database.backend import open_backend

    return open_backend(url, create=True).time() > 0


def settle(url: str, precision: str) -> Any:
    from affinity_search.storage.database.backend import open_backend
    from affinity_search.storage.study import load_study

    return load_study(open_backend(url, create=False), "tiny").settle_precision(precision).precision


def raise_trials(url: str, trials: str) -> Any:
    from making import open_study

    from affinity_search.storage.database.backend import open_backend

    return open_study(open_backend(url, create=True), "tiny", trials=int(trials))[1]


def create_study(url: str, argument: str) -> Any:
    from making import make

    from affinity_search.storage.database.backend import open_backend

    return make(open_backend(url, create=True)).token


def work(url: str, worker_id: str) -> Any:
    from fake_objective import install, replace_for_good

    from affinity_search.search.worker.setup import WorkerOptions
    from affinity_search.search.worker.setup import work as use_up_places
    from affinity_search.storage.database.backend import open_backend
    from affinity_search.storage.stored.agenda import OneStudy
    from affinity_search.storage.study import load_study

    install(replace_for_good)
    study = load_study(open_backend(url, create=False), "tiny")
    return use_up_places(OneStudy(study), WorkerOptions("cpu", worker_id=worker_id))


def close_if_flat(url: str, argument: str) -> Any:
    from affinity_search.storage.database.backend import open_backend
    from affinity_search.storage.places.closing import close_if_flat
    from affinity_search.storage.study import load_study

    return close_if_flat(load_study(open_backend(url, create=False), "tiny"))


def claim_delivery(url: str, token: str) -> Any:
    from affinity_search.storage.database.backend import open_backend
    from affinity_search.storage.results.deliveries import Deliveries

    found = Deliveries(open_backend(url, create=False), "notify-0").claim(token, "end/4")
    return found and ("fresh" if found.is_fresh else "taken over")


ACTIONS = {
    action.__name__: action
    for action in (open_fresh, settle, raise_trials, create_study, work, close_if_flat, claim_delivery)
}


def contend(action: str, argument: str, barrier: Barrier) -> None:
    """What each process does."""
    barrier.wait(TIMEOUT_S)
    result = json.dumps(ACTIONS[action](os.environ["CONTENDER_URL"], argument))
    os.write(1, f"{result}\n".encode())  # one call, so that lines do not mix


def main(arguments: Sequence[str]) -> None:
    """In a process of its own."""
    action, *each = arguments
    forks = multiprocessing.get_context("fork")
    barrier = forks.Barrier(len(each))
    processes = [forks.Process(target=contend, args=(action, argument, barrier)) for argument in each]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(any(process.exitcode for process in processes))
