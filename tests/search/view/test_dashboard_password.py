"""The dashboard's password file: what it may say, who may read it, and where nothing starts without one."""

from pathlib import Path

import pytest
from conftest import Cli

from affinity_search.search.view.dashboard.password import Password, read_password
from affinity_search.storage.database.backend import Backend

SECRET = "correct horse battery"


class TestPasswordFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "the password"

    def write(self, path: Path, text: str, mode: int = 0o600) -> Path:
        path.write_bytes(text.encode("utf-8"))
        path.chmod(mode)
        return path

    @pytest.mark.parametrize(
        ("text", "password"),
        [
            (f"ann:{SECRET}\n", Password("ann", SECRET)),
            (f"{SECRET}\r\n", Password(None, SECRET)),
            (f"ann:{SECRET}:more", Password("ann", f"{SECRET}:more")),
            (f":{SECRET}", Password(None, SECRET)),
        ],
    )
    def test_it_is_read(self, path: Path, text: str, password: Password) -> None:
        assert read_password(self.write(path, text)) == password

    def test_it_is_not_shown(self) -> None:
        assert SECRET not in repr(Password("ann", SECRET))

    @pytest.mark.parametrize(
        ("text", "mode", "complaint"),
        [
            ("", 0o600, "has fewer than 12 characters; make one with: python3"),
            ("ann:\n", 0o600, "has fewer than 12 characters"),
            ("hunter2", 0o600, "has fewer than 12 characters"),
            (" " * 20, 0o600, "has fewer than 12 characters"),
            (f"{SECRET}\nmore", 0o600, "has several lines; write one, USER:PASSWORD"),
            (SECRET, 0o640, "(mode 640); run: chmod 600 '"),
            (SECRET, 0o604, "(mode 604); run: chmod 600 '"),
        ],
    )
    def test_a_bad_one_is_refused(
        self, path: Path, sqlite: Backend, sqlite_url: str, cli: Cli, text: str, mode: int, complaint: str
    ) -> None:
        self.write(path, text, mode)
        line = cli("dashboard", "--password-file", str(path), "--storage", sqlite_url, fails=True).refused()
        assert complaint in line
        assert str(path) in line
        assert not text.strip() or text.strip() not in line

    def test_a_missing_one(self, path: Path, cli: Cli) -> None:
        line = cli("dashboard", "--password-file", str(path), fails=True).refused()
        assert line == f"the password file {path} cannot be read: No such file or directory"

    def test_bytes_that_are_no_text(self, path: Path, cli: Cli) -> None:
        path.write_bytes(b"\xff" * 20)
        path.chmod(0o600)
        assert "is not UTF-8 text" in cli("dashboard", "--password-file", str(path), fails=True).refused()

    @pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "", "some.name", "127.0.0.1.evil"])
    def test_beyond_this_machine_there_is_no_dashboard_without_one(self, cli: Cli, sqlite_url: str, host: str) -> None:
        ran = cli("dashboard", "--host", host, "--storage", sqlite_url, fails=True)
        assert ran.code == 2
        assert "--password-file FILE" in ran.err
