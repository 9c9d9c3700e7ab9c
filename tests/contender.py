"""One of several processes that do the same thing to a database at the same moment.

Says `ready`, waits for a line on its standard input, acts, and prints its result as JSON.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def together(action: str, url: str, arguments: list[str]) -> list[Any]:
    """Let one process for each argument do `action` at once; returns their results, failing on any that died."""
    processes = [_start(action, url, argument) for argument in arguments]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120) for process in processes]
    failed = [err for process, (_, err) in zip(processes, outputs, strict=True) if process.returncode]
    assert not failed, "\n".join(failed)
    return [json.loads(out) for out, _ in outputs]


def _start(action: str, url: str, argument: str) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    command = [sys.executable, str(HERE / "contender.py"), action, argument]
    environment = os.environ | {"CONTENDER_URL": url}
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)


def open_fresh(url: str, argument: str) -> Any:
    from storage.backend import open_backend

    return open_backend(url, create=True).time() > 0


def settle(url: str, precision: str) -> Any:
    from storage.backend import open_backend
    from storage.study import load_study

    return load_study(open_backend(url, create=False), "tiny").settle_precision(precision).precision


def raise_trials(url: str, trials: str) -> Any:
    from search.definition import open_study
    from storage.backend import open_backend

    return open_study(open_backend(url, create=True), "tiny", trials=int(trials))[1]


def create_study(url: str, argument: str) -> Any:
    from making import make

    from storage.backend import open_backend

    return make(open_backend(url, create=True)).token


def work(url: str, worker_id: str) -> Any:
    from fake_objective import install, replace_for_good

    from search.worker import WorkerOptions
    from search.worker import work as use_up_places
    from storage.backend import open_backend
    from storage.study import load_study

    install(replace_for_good)
    study = load_study(open_backend(url, create=False), "tiny")
    return use_up_places(study, WorkerOptions("cpu", worker_id=worker_id))


def main() -> None:
    action = {f.__name__: f for f in (open_fresh, settle, raise_trials, create_study, work)}[sys.argv[1]]
    import search.definition
    import search.worker  # noqa: F401 - imported before the start, so that all begin together

    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(action(os.environ["CONTENDER_URL"], sys.argv[2])), flush=True)


if __name__ == "__main__":
    main()
