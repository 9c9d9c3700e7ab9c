"""What the dashboard's doors let through, in front of the real optuna-dashboard."""

import gzip
import io
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from limits import parse
from making import make, trained
from optuna.artifacts import upload_artifact
from optuna.exceptions import StorageInternalError
from optuna_dashboard import wsgi
from sqlalchemy.exc import DBAPIError
from werkzeug.test import Client, TestResponse
from werkzeug.wrappers import Response

from affinity_search.search.view.dashboard.guard import Guard, host_of
from affinity_search.search.view.dashboard.login import Login, client_of
from affinity_search.search.view.dashboard.password import Password
from affinity_search.search.view.dashboard.serving import Access, guarded
from affinity_search.search.view.pictures import PictureStore
from affinity_search.storage.database.backend import Backend, open_backend
from affinity_search.storage.database.tables import studies
from affinity_search.storage.study import load_study, study_tokens
from affinity_search.storage.trials.reading import reading_storage

SECRET = "correct horse battery"
HERE = "http://127.0.0.1:8080"
SCRIPT = b"<script>fetch('/api/studies')</script>"


def quiet(message: str) -> None:
    pass


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database that holds a finished study, and the study's artifact."""
    folder = tmp_path_factory.mktemp("trained")
    backend = open_backend(f"sqlite:///{folder / 'studies.db'}", create=True)
    page = folder / "page.html"
    page.write_bytes(SCRIPT)
    store = PictureStore(folder / "files")
    (folder / "files" / "artifacts").mkdir(parents=True)
    upload_artifact(artifact_store=store, file_path=str(page), study_or_trial=trained(backend).optuna)
    backend.close()
    return folder


@pytest.fixture
def files(tmp_path: Path, trained_once: Path) -> Path:
    return Path(shutil.copytree(trained_once / "files", tmp_path / "files"))


@pytest.fixture
def filled(trained_once: Path, sqlite_url: str) -> Iterator[Backend]:
    shutil.copy(trained_once / "studies.db", sqlite_url.removeprefix("sqlite:///"))
    opened = open_backend(sqlite_url, create=False)
    yield opened
    opened.close()


@pytest.fixture
def study_id(filled: Backend) -> int:
    return load_study(filled, "tiny").optuna._study_id


@pytest.fixture
def reading(filled: Backend, sqlite_url: str) -> Iterator[Backend]:
    opened = open_backend(sqlite_url, create=False, read_only=True)
    yield opened
    opened.close()


Serve = Callable[..., Client]


@pytest.fixture
def serve(filled: Backend, reading: Backend, study_id: int, files: Path) -> Serve:
    """A browser at the whole dashboard."""

    def begin(**access: Any) -> Client:
        chosen = Access(**({"host": "127.0.0.1", "port": 8080, "password": None} | access))
        storage = reading_storage(filled if chosen.allow_edit else reading)
        return Client(guarded(storage, files, chosen, quiet))

    return begin


def asked(client: Client, path: str, method: str = "GET", base: str = HERE, **more: Any) -> TestResponse:
    return client.open(path, method=method, base_url=base, **more)


def concrete(rule: str, study_id: int) -> str:
    """A path that the rule matches."""
    path = re.sub(r"<study_id:int>", str(study_id), rule)
    path = re.sub(r"<artifact_id:[^>]+>", "00000000-0000", path)
    return re.sub(r"<[^>]+>", "1", path)


class TestReadOnly:
    def test_every_route_that_is_not_for_reading_is_refused(
        self, serve: Serve, filled: Backend, study_id: int, files: Path
    ) -> None:
        app: Any = wsgi(filled.optuna)
        routes = [(route.method, concrete(route.rule, study_id)) for route in app.routes if route.method != "GET"]
        assert len(routes) >= 15
        assert {method for method, _ in routes} == {"POST", "PUT", "DELETE"}
        client, before = serve(), (study_tokens(filled), sorted(files.rglob("*")))
        for method, path in routes:
            answer = asked(client, path, method, json={"study_name": "x", "directions": ["minimize"]})
            assert answer.status_code == 405, (method, path)
            assert answer.headers["Allow"] == "GET, HEAD"
            assert "read-only" in answer.get_json()["reason"]
        assert (study_tokens(filled), sorted(files.rglob("*"))) == before

    @pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "TRACE", "delete", "PURGE"])
    def test_so_is_every_other_method(self, serve: Serve, study_id: int, method: str) -> None:
        assert asked(serve(), f"/api/studies/{study_id}", method).status_code == 405

    def test_behind_the_door_the_database_refuses_too(self, backend: Backend, database_url: str) -> None:
        study = make(backend)
        reading = open_backend(database_url, create=False, read_only=True)
        with pytest.raises(StorageInternalError) as refused:
            reading.rdb.delete_study(study.optuna._study_id)
        assert re.search(r"readonly database|read-only transaction", str(refused.value.__cause__))
        with pytest.raises(DBAPIError, match=r"readonly database|read-only transaction"):
            reading.transaction(lambda connection: connection.execute(studies.delete()))
        reading.close()
        assert len(study_tokens(backend)) == 1

    def test_who_allows_it_can_delete(self, serve: Serve, filled: Backend, study_id: int, files: Path) -> None:
        answer = asked(serve(allow_edit=True), f"/api/studies/{study_id}", "DELETE", json={})
        assert answer.status_code == 204, answer.text
        assert study_tokens(filled) == []
        assert list((files / "artifacts").iterdir()) == []

    def test_reading_goes_on(self, serve: Serve, study_id: int) -> None:
        client = serve()
        assert asked(client, "/api/studies").get_json()["study_summaries"][0]["study_name"] == "tiny"
        assert len(asked(client, f"/api/studies/{study_id}").get_json()["trials"]) == 4
        assert asked(client, "/dashboard", "HEAD").status_code == 200
        assert asked(client, "/static/bundle.js", headers={"Accept-Encoding": ""}).status_code == 200


class TestHosts:
    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost@evil.example", "", "[::1"]
    )
    def test_a_forged_host_gets_nothing(self, serve: Serve, study_id: int, host: str) -> None:
        for allow_edit in (False, True):
            answer = asked(serve(allow_edit=allow_edit), "/api/studies", headers={"Host": host})
            assert answer.status_code == 403
            assert "tiny" not in answer.text

    @pytest.mark.parametrize(
        "base", ["http://localhost:1", "http://LOCALHOST", "http://[::1]:8080", "http://lab.example:8080"]
    )
    def test_our_own_names_are_answered(self, serve: Serve, base: str) -> None:
        client = serve(allowed_hosts=("Lab.example",))
        assert asked(client, "/api/studies", base=base).status_code == 200

    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9090", "https://127.0.0.1"])
    def test_a_page_of_another_origin_can_change_nothing(
        self, serve: Serve, filled: Backend, study_id: int, origin: str
    ) -> None:
        client = serve(allow_edit=True)
        answer = asked(client, f"/api/studies/{study_id}", "DELETE", json={}, headers={"Origin": origin})
        assert answer.status_code == 403
        assert len(study_tokens(filled)) == 1

    def test_our_own_page_can(self, serve: Serve, study_id: int) -> None:
        client = serve(allow_edit=True, allowed_hosts=("lab.example",))
        headers = {"Origin": "https://lab.example"}  # TLS ends at a proxy
        path = f"/api/studies/{study_id}"
        assert asked(client, path, "DELETE", "http://lab.example", json={}, headers=headers).status_code == 204

    @pytest.mark.parametrize(
        ("authority", "host"),
        [
            ("A.example:80", "a.example"),
            ("[2001:DB8::1]:1", "2001:db8::1"),
            ("a:b", None),
            ("a:99999", None),
            ("a/b", None),
        ],
    )
    def test_reading_a_host_header(self, authority: str, host: str | None) -> None:
        assert host_of(authority) == host


class TestLogin:
    @pytest.fixture
    def client(self, serve: Serve) -> Client:
        return serve(password=Password("ann", SECRET))

    def test_without_the_password_nothing_is_shown(self, client: Client, study_id: int) -> None:
        for path in ("/", "/dashboard", "/api/studies", f"/api/studies/{study_id}", "/static/bundle.js", "/csv/1"):
            answer = asked(client, path)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
            assert "tiny" not in answer.text

    def test_a_browser_shows_a_page_and_a_program_gets_json(self, client: Client) -> None:
        browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
        page = asked(client, "/", headers=browser)
        assert (page.status_code, page.mimetype) == (401, "text/html")
        assert "<p>Sign in to see this dashboard: load the page again.</p>" in page.text
        assert page.headers["WWW-Authenticate"].startswith("Basic realm=")
        for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json, text/plain, */*"}):
            assert asked(client, "/api/studies", headers=headers).json["reason"].startswith("Sign in")

    def test_with_it_everything_is(self, client: Client) -> None:
        assert asked(client, "/api/studies", auth=("ann", SECRET)).status_code == 200

    @pytest.mark.parametrize("auth", [("ann", ""), ("ann", SECRET + "x"), ("", SECRET), ("bob", SECRET)])
    def test_a_wrong_one_does_not_help(self, client: Client, auth: tuple[str, str]) -> None:
        assert asked(client, "/api/studies", auth=auth).status_code == 401

    @pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic YW5u", "Bearer x", "Basic /////w=="])
    def test_nonsense_is_refused(self, client: Client, header: str) -> None:
        assert asked(client, "/api/studies", headers={"Authorization": header}).status_code == 401

    def test_umlauts(self, serve: Serve) -> None:
        client = serve(password=Password(None, "pässwörter sind läng"))
        assert asked(client, "/api/studies", auth=("", "pässwörter sind läng")).status_code == 200
        assert asked(client, "/api/studies", auth=("", "passworter sind lang")).status_code == 401

    def test_ten_wrong_ones_and_the_right_one_is_refused_as_well(self, client: Client) -> None:
        for _ in range(10):
            assert asked(client, "/api/studies", auth=("ann", "guess")).status_code == 401
        answer = asked(client, "/api/studies", auth=("ann", SECRET))
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["Retry-After"]) <= 300
        elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
        assert asked(client, "/api/studies", auth=("ann", SECRET), environ_overrides=elsewhere).status_code == 200

    def test_right_ones_and_requests_without_one_are_no_attempts(self, client: Client) -> None:
        for _ in range(20):
            asked(client, "/api/studies")
            assert asked(client, "/api/studies", auth=("ann", SECRET)).status_code == 200

    def test_attempts_are_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        said: list[str] = []
        client = Client(Login(Response("in"), Password(None, SECRET), said.append, parse("1 per hour")))
        wrong = asked(client, "/", auth=("", "guess"), environ_overrides={"REMOTE_ADDR": "192.0.2.7"})
        assert wrong.status_code == 401
        assert said == ["login: 192.0.2.7 gave a wrong password 1 times and is refused for a while"]
        there = {"auth": ("", SECRET), "environ_overrides": {"REMOTE_ADDR": "192.0.2.7"}}
        assert asked(client, "/", **there).status_code == 429
        now = time.time()
        monkeypatch.setattr("time.time", lambda: now + 3601)
        assert asked(client, "/", **there).status_code == 200

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("192.0.2.1", "192.0.2.2", False),
            ("2001:db8::1", "2001:db8::ffff", True),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
            ("::ffff:192.0.2.1", "192.0.2.1", True),
            (None, "a socket", True),
        ],
    )
    def test_whose_attempts_count_together(self, one: str | None, other: str, same: bool) -> None:
        assert (client_of(one) == client_of(other)) is same


class TestArtifacts:
    def artifact(self, serve: Serve, filled: Backend, files: Path, name: str, content: bytes) -> TestResponse:
        study = filled.optuna.get_all_studies()[0]
        path = files.parent / name
        path.write_bytes(content)
        loaded = optuna.load_study(study_name=study.study_name, storage=filled.optuna)
        store = PictureStore(files)
        artifact = upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=loaded)
        headers = {"Origin": HERE}
        return asked(serve(), f"/artifacts/{study._study_id}/{artifact}", headers=headers)

    @pytest.mark.parametrize("name", ["page.html", "drawing.svg", "data.xml", "paper.pdf", "unknown", "code.js"])
    def test_what_could_run_script_is_saved_not_shown(
        self, serve: Serve, filled: Backend, files: Path, name: str
    ) -> None:
        answer = self.artifact(serve, filled, files, name, SCRIPT)
        assert (answer.status_code, answer.data) == (200, SCRIPT)
        assert answer.headers["Content-Disposition"] == "attachment"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("sandbox")
        assert "Access-Control-Allow-Origin" not in answer.headers

    @pytest.mark.parametrize("name", ["curve.png", "scores.csv", "notes.txt"])
    def test_what_cannot_is_shown(self, serve: Serve, filled: Backend, files: Path, name: str) -> None:
        answer = self.artifact(serve, filled, files, name, b"abc")
        assert (answer.status_code, answer.data) == (200, b"abc")
        assert "Content-Disposition" not in answer.headers
        assert "Access-Control-Allow-Origin" not in answer.headers

    def test_looking_leaves_no_folder(self, tmp_path: Path) -> None:
        PictureStore(tmp_path / "files")
        assert list(tmp_path.iterdir()) == []
        PictureStore(tmp_path / "files").write("abc", io.BytesIO(b"x"))
        assert [path.name for path in (tmp_path / "files" / "artifacts").iterdir()] == ["abc"]


class TestAnswers:
    def test_large_ones_are_compressed_for_who_can_read_it(self, serve: Serve, study_id: int) -> None:
        client, path = serve(), f"/api/studies/{study_id}"
        plain = asked(client, path)
        packed = asked(client, path, headers={"Accept-Encoding": "gzip"})
        assert packed.headers["Content-Encoding"] == "gzip"
        assert "Content-Encoding" not in asked(client, path, headers={"Accept-Encoding": "gzip;q=0"}).headers
        assert json.loads(gzip.decompress(packed.data)) == plain.get_json()
        assert len(packed.data) < len(plain.data)

    def test_no_other_page_may_hold_or_frame_them(self, serve: Serve) -> None:
        headers = asked(serve(), "/dashboard").headers
        assert headers["X-Frame-Options"] == "SAMEORIGIN"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "private, no-cache"


class TestReading:
    def test_finished_trials_are_read_once(self, reading: Backend, study_id: int) -> None:
        storage = reading_storage(reading)
        storage.read_ahead()
        first = storage.get_all_trials(study_id, deepcopy=False)
        second = storage.get_all_trials(study_id, deepcopy=False)
        assert [id(trial) for trial in first] == [id(trial) for trial in second]

    def test_a_study_under_a_deleted_one_s_number_is_another(self, sqlite: Backend, sqlite_url: str) -> None:
        old = trained(sqlite, trials=4)
        storage = reading_storage(open_backend(sqlite_url, create=False, read_only=True))
        storage.read_ahead()
        sqlite.optuna.delete_study(old.optuna._study_id)
        new = trained(sqlite, trials=2)
        assert new.optuna._study_id == old.optuna._study_id
        storage.get_all_studies()
        found = storage.get_all_trials(new.optuna._study_id)
        assert [trial.user_attrs for trial in found] == [trial.user_attrs for trial in new.optuna.trials]


def test_the_guard_passes_what_it_should_not_touch() -> None:
    client = Client(Guard(Response("in"), ["a.example"], allow_edit=True))
    assert asked(client, "/", "POST", "http://a.example").text == "in"
