"""docker-compose.yml, run: three workers, one killed, every place used once; the login; no password in sight.

Run by `make compose-test` where a Docker engine is. Project, port and secrets are its own: a search that runs from the
same folder is not touched.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from waiting import until

ROOT = Path(__file__).parent.parent
WORKERS = 3
USED_BEFORE_THE_KILL = 3
PLACES = 150  # of digits; its own 24 are used within six seconds, which is less than finding one to kill takes
LIMIT_S = 900.0  # a killed worker's lease runs for two minutes, and this machine may be busy


class Compose:
    """`docker compose` for a project of this run alone."""

    def __init__(self, folder: Path) -> None:
        self._project = f"affinity-search-test-{secrets.token_hex(3)}"
        self.secrets = folder / "secrets"
        self.port = _free_port()
        self._env_file = folder / "env"
        self._longer = folder / "longer.yml"
        self._longer.write_text(f"services: {{create: {{command: [create, digits, --trials, '{PLACES}']}}}}\n")
        self._environment = os.environ | {
            "AFFINITY_SEARCH_SECRETS": str(self.secrets),
            "AFFINITY_SEARCH_PORT": str(self.port),
        }

    def make_secrets(self) -> list[str]:
        """Makes them and returns them."""
        subprocess.run([ROOT / "deploy" / "secrets.sh", self.secrets, self._env_file], check=True)
        return [(self.secrets / name).read_text().strip() for name in ("db_password", "dashboard_password")]

    def command(self, *arguments: str) -> list[str]:
        options = ["--project-name", self._project, "--env-file", str(self._env_file), "--progress", "plain"]
        files = ["--file", str(ROOT / "docker-compose.yml"), "--file", str(self._longer)]
        return ["docker", "compose", *options, *files, *arguments]

    def run(self, *arguments: str, loud: bool = False) -> str:
        """Its stdout; ends the test with its stderr if it fails."""
        out = subprocess.PIPE
        done = subprocess.run(
            self.command(*arguments),
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=None if loud else out,
            stderr=None if loud else out,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}: {done.stdout} {done.stderr}"
        return done.stdout or ""

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """All that `docker inspect` knows of them, ended ones too."""
        ids = self.run("ps", "--all", "--quiet", *services).split()
        done = subprocess.run(["docker", "inspect", *ids], stdout=subprocess.PIPE, text=True, check=True)
        return list(json.loads(done.stdout))

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.run("exec", "-T", "dashboard", "affinity-search", "status", "digits", "--json")))


def main() -> None:
    """Build, start, kill, wait, check; whatever happens, nothing stays but the image."""
    if shutil.which("docker") is None:
        sys.exit("error: no docker here; install Docker with compose, or run the suite without this test")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        compose = Compose(Path(folder))
        passwords = compose.make_secrets()
        try:
            compose.run("build", "create", loud=True)
            say(started, "built")
            compose.run("up", "--detach", "--scale", f"worker={WORKERS}", loud=True)
            kill_one(compose, started)
            check_the_end(compose, started)
            check_login(compose.port, passwords[1])
            check_hardening(compose)
            check_no_leaks(compose, passwords)
            say(started, "all is well")
        except BaseException:
            subprocess.run(compose.command("logs", "--tail", "30"), cwd=ROOT, env=compose._environment, check=False)
            raise
        finally:
            compose.run("down", "--volumes", "--timeout", "5", "--remove-orphans", loud=True)


def kill_one(compose: Compose, started: float) -> None:
    """Kill a container in the middle of a trial; the others must recover its place."""

    def holding() -> dict[str, Any]:
        """The place of each container whose worker is in a trial, by the container's host name."""
        status = compose.status()
        if status["counts"]["used"] < USED_BEFORE_THE_KILL:
            return {}
        return {one["host"]: one["place"] for one in status["running"] if one["trial"] is not None}

    def victim() -> tuple[str, int] | None:
        held = holding()
        if not held:
            return None
        # A trial takes less time than the answer: what is killed is stopped first, and asked for again.
        host = next(iter(held))
        container = {one["Config"]["Hostname"]: one["Id"] for one in compose.containers("worker")}[host]
        # A busy machine may fail to freeze it in time ("unable to freeze"): then once more.
        paused = subprocess.run(["docker", "pause", container], stdout=subprocess.DEVNULL, check=False).returncode == 0
        place = holding().get(host) if paused else None
        if place is None:
            subprocess.run(["docker", "unpause", container], stdout=subprocess.DEVNULL, check=paused)
            return None
        return container, place

    def killed() -> tuple[str, int] | None:
        """Docker thaws a paused container to kill it: its worker may end the trial in that moment. Then once more."""
        container, place = until(victim, f"a worker in a trial, {USED_BEFORE_THE_KILL} places used", LIMIT_S)
        subprocess.run(["docker", "kill", container], stdout=subprocess.DEVNULL, check=True)
        if any(container.startswith(one["host"]) and one["place"] == place for one in compose.status()["running"]):
            return container, place
        say(started, f"container {container[:12]} ended place {place} before it died")
        subprocess.run(["docker", "start", container], stdout=subprocess.DEVNULL, check=True)
        return None

    container, place = until(killed, "a worker killed in a trial", LIMIT_S)
    say(started, f"killed container {container[:12]}, which held place {place}")


def check_the_end(compose: Compose, started: float) -> None:
    def ended() -> list[dict[str, Any]]:
        workers = compose.containers("worker")
        return [] if any(one["State"]["Running"] for one in workers) else workers

    workers = until(ended, "the workers to end", LIMIT_S)
    codes = sorted(one["State"]["ExitCode"] for one in workers)
    assert codes == [0] * (WORKERS - 1) + [137], codes
    say(started, "the workers have ended")
    best = json.loads(compose.run("run", "--rm", "export"))
    counts, status = best["counts"], compose.status()
    places = status["definition"]["trials"]
    assert (places, counts["total"], counts["used"], counts["failed"]) == (PLACES, PLACES, PLACES, 0), counts
    begun = status["attempts"]
    assert begun == places + 1, f"{begun} attempts: the killed worker's trial, and only that, is taken up again"
    say(started, f"{places} of {places} places used in {begun} attempts, macro F1 {best['macro_f1']:.4f}")


def check_login(port: int, password: str) -> None:
    def answer(credentials: str | None) -> int:
        headers = {"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"} if credentials else {}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/studies", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as page:
                return int(page.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert [answer(None), answer("any:wrong"), answer(f"any:{password}")] == [401, 401, 200]


def check_hardening(compose: Compose) -> None:
    for one in compose.containers():
        name, host = one["Name"], one["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert "ALL" in host["CapDrop"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert "db" in name or one["Config"]["User"] not in ("", "0", "root"), name
        bindings = [binding for bound in (host["PortBindings"] or {}).values() for binding in bound or []]
        assert all(binding["HostIp"] == "127.0.0.1" for binding in bindings), name


def check_no_leaks(compose: Compose, passwords: list[str]) -> None:
    seen = json.dumps(compose.containers()) + compose.run("logs") + compose.run("config") + compose.run("top")
    assert not any(password in seen for password in passwords), "a password stands in inspect, logs, config or top"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def say(started: float, message: str) -> None:
    print(f"{time.monotonic() - started:5.0f} s  {message}", flush=True)


if __name__ == "__main__":
    main()
