"""The files that put a search on other people's machines: Kubernetes, SLURM, and the secrets of docker compose.

docker-compose.yml itself is run by `make compose-test`.
"""

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from making import ROOT

DEPLOY = ROOT / "deploy"
MANIFEST = DEPLOY / "kubernetes.yaml"


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")))


class TestKubernetes:
    @pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
    def test_the_manifest_fits_the_schemas(self, version: str) -> None:
        for document in documents():
            kubernetes_validate.validate(document, version, strict=True)

    def test_a_wrong_key_is_noticed(self) -> None:
        broken = documents()[1]
        broken["spec"]["complitions"] = broken["spec"].pop("completions")
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, "1.31", strict=True)

    def test_what_refers_to_another_part_finds_it(self) -> None:
        by_kind = {document["kind"]: document for document in documents()}
        assert set(by_kind) == {"PersistentVolumeClaim", "Job", "Deployment", "Service"}
        deployed = by_kind["Deployment"]["spec"]
        labels = deployed["template"]["metadata"]["labels"]
        assert by_kind["Service"]["spec"]["selector"] == deployed["selector"]["matchLabels"] == labels
        for kind in ("Job", "Deployment"):
            pod = by_kind[kind]["spec"]["template"]["spec"]
            claims = [
                one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"] if "persistentVolumeClaim" in one
            ]
            assert claims == [by_kind["PersistentVolumeClaim"]["metadata"]["name"]]
            (container,) = pod["containers"]
            assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}

    def test_no_pod_may_more_than_it_must(self) -> None:
        for document in documents():
            if "template" not in document["spec"]:
                continue
            pod = document["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"]
            for container in pod["containers"]:
                allowed = container["securityContext"]
                assert allowed["readOnlyRootFilesystem"]
                assert not allowed["allowPrivilegeEscalation"]
                assert allowed["capabilities"] == {"drop": ["ALL"]}


class TestSlurm:
    def run(self, tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The batch script with an `srun` that only says what it was to run."""
        stub = tmp_path / "srun"
        stub.write_text('#!/bin/sh\necho "$@"\n')
        stub.chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", DEPLOY / "slurm.sbatch", *arguments],
            env={"PATH": path} | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_a_task_is_a_worker(self, tmp_path: Path) -> None:
        where = {"AFFINITY_SEARCH_STORAGE": "postgresql://u@h/d", "AFFINITY_SEARCH_FILES": "/shared"}
        cpu = self.run(tmp_path, "mine", SLURM_CPUS_PER_TASK="4", **where)
        assert cpu.stdout == "affinity-search worker mine --device cpu --threads 4\n", cpu
        gpu = self.run(tmp_path, "mine", CUDA_VISIBLE_DEVICES="2", **where)
        assert gpu.stdout == "affinity-search worker mine --device gpu:0\n", gpu

    @pytest.mark.parametrize("missing", ["AFFINITY_SEARCH_STORAGE", "AFFINITY_SEARCH_FILES", "study"])
    def test_what_is_missing_is_named(self, tmp_path: Path, missing: str) -> None:
        where = {"AFFINITY_SEARCH_STORAGE": "postgresql://u@h/d", "AFFINITY_SEARCH_FILES": "/shared"}
        where.pop(missing, None)
        ran = self.run(tmp_path, *([] if missing == "study" else ["mine"]), **where)
        assert ran.returncode != 0
        assert missing in ran.stderr


class TestSecrets:
    def make(self, folder: Path) -> dict[str, str]:
        subprocess.run([DEPLOY / "secrets.sh", folder / "secrets", folder / "env"], check=True, capture_output=True)
        return {path.name: path.read_text() for path in (folder / "secrets").iterdir()}

    def test_they_are_random_and_nobody_else_s(self, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        made, other = self.make(tmp_path), self.make(tmp_path / "other")
        assert set(made) == {"db_password", "dashboard_password", "pgpass"}
        assert not set(made.values()) & set(other.values())
        for name in ("db_password", "dashboard_password"):
            assert re.fullmatch(r"[A-Za-z0-9_-]{32}", made[name]), name
        assert made["pgpass"] == f"db:5432:affinity:affinity:{made['db_password']}\n"
        for path in (tmp_path / "secrets").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            uid = path.stat().st_uid
            assert uid == (os.geteuid() or 10001)
        assert (tmp_path / "env").read_text() == f"AFFINITY_SEARCH_UID={uid}\n"

    def test_they_are_made_once(self, tmp_path: Path) -> None:
        (tmp_path / "env").write_text("MINE=1\n")
        first = self.make(tmp_path)
        (tmp_path / "secrets" / "dashboard_password").unlink()
        second = self.make(tmp_path)
        assert first["db_password"] == second["db_password"]
        assert first["dashboard_password"] != second["dashboard_password"]
        assert (tmp_path / "env").read_text().splitlines()[0] == "MINE=1"
        assert len((tmp_path / "env").read_text().splitlines()) == 2

    def test_a_new_database_password_goes_into_libpq_s_file(self, tmp_path: Path) -> None:
        first = self.make(tmp_path)
        (tmp_path / "secrets" / "db_password").unlink()
        second = self.make(tmp_path)
        assert second["db_password"] != first["db_password"]
        assert second["pgpass"] == f"db:5432:affinity:affinity:{second['db_password']}\n"
        assert second["dashboard_password"] == first["dashboard_password"]

    def test_so_does_one_s_own(self, tmp_path: Path) -> None:
        self.make(tmp_path)
        (tmp_path / "secrets" / "db_password").write_text("my:own\\secret")
        made = self.make(tmp_path)
        assert made["db_password"] == "my:own\\secret"
        assert made["pgpass"] == "db:5432:affinity:affinity:my\\:own\\\\secret\n"
        assert self.make(tmp_path) == made


def test_the_locks_name_no_index_and_pin_by_hash() -> None:
    for name in ("requirements.lock", "requirements-gpu.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        pins = re.split(r"\n(?=\S)", text.strip())
        assert len(pins) > 50
        assert all("==" in pin and "--hash=sha256:" in pin for pin in pins), name
