"""The real dashboard in a process of its own, on loopback."""

import base64
import http.client
import json
import re
import signal
import socket
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from conftest import Cli, Start, Started
from making import make, trained
from waiting import until

from affinity_search.storage.database.backend import Backend


def address(dashboard: Started) -> str:
    found = until(lambda: re.search(r"http://127\.0\.0\.1:\d+/", dashboard.said), "the dashboard's address")
    return found[0]


def fetched(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def test_it_shows_the_study_until_it_is_ended(backend: Backend, database_url: str, start: Start) -> None:
    number = signal.SIGINT if database_url.startswith("sqlite") else signal.SIGTERM
    trained(backend)
    dashboard = start("dashboard", "--port", "0", "--storage", database_url)
    url = address(dashboard)
    (summary,) = fetched(f"{url}api/studies")["study_summaries"]
    assert summary["study_name"] == "tiny"
    detail = fetched(f"{url}api/studies/{summary['study_id']}")
    assert detail["objective_names"] == ["1 - macro F1 (holdout)"]
    assert len(detail["trials"]) == 4
    dashboard.process.send_signal(number)
    assert dashboard.ended() in (0, 130, -signal.SIGTERM)
    assert "Traceback" not in dashboard.said
    port = int(url.rsplit(":", 1)[1].strip("/"))
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


def test_a_port_that_is_taken(sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = cli("dashboard", "--port", str(port), "--storage", sqlite_url, fails=True).refused()
    assert line == f"port {port} of 127.0.0.1 cannot be opened (Address already in use); try --port 0"


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def posted(url: str, length: int) -> int:
    """The status of a request that only announces a body."""
    where = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=30)
    connection.putrequest("POST", where.path)
    connection.putheader("Content-Length", str(length))
    connection.endheaders(b"x")
    answer = connection.getresponse().status
    connection.close()
    return answer


def test_behind_a_proxy_each_client_has_its_own_attempts(
    sqlite: Backend, sqlite_url: str, tmp_path: Path, start: Start
) -> None:
    make(sqlite)
    secret = tmp_path / "password"
    secret.write_text("correct horse battery")
    secret.chmod(0o600)
    dashboard = start(
        *("dashboard", "--port", "0", "--host", "localhost", "--trusted-proxy", "127.0.0.1", "--allowed-host", "lab"),
        AFFINITY_SEARCH_PASSWORD_FILE=str(secret),
        AFFINITY_SEARCH_STORAGE=sqlite_url,
    )
    port = until(lambda: re.search(r"http://localhost:(\d+)/ \(read-only", dashboard.said), "its address")[1]
    url = f"http://127.0.0.1:{port}/api/studies"
    right = {"Authorization": f"Basic {base64.b64encode(b':correct horse battery').decode()}", "Host": "lab"}
    wrong = {"Authorization": f"Basic {base64.b64encode(b':guess').decode()}", "Host": "lab"}
    assert status(url, **right) == 200
    assert [status(url, **wrong, **{"X-Forwarded-For": "192.0.2.1"}) for _ in range(11)] == [401] * 10 + [429]
    assert status(url, **right, **{"X-Forwarded-For": "192.0.2.1"}) == 429
    # What the client itself claims stands before what the proxy saw, and is not believed.
    assert status(url, **right, **{"X-Forwarded-For": "192.0.2.9, 192.0.2.1"}) == 429
    assert status(url, **right, **{"X-Forwarded-For": "192.0.2.2"}) == 200
    assert posted(url, 100_000) == 413  # not even taken in
    dashboard.process.terminate()
    assert dashboard.ended() == 0
    assert "login: 192.0.2.1 gave a wrong password 10 times" in dashboard.said
    assert "correct horse" not in dashboard.said
