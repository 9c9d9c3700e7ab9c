"""The training tests on the device, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.setting import Result, Setting

ROOT = Path(__file__).parents[2]
FILES = [
    "tests/search/training/test_affinity.py",  # the longest first
    "tests/search/training/test_fit_heads.py",
    "tests/search/training/test_fit.py",
    "tests/search/training/test_heads.py",
    "tests/search/training/test_network_kinds.py",
    "tests/search/training/test_diagnostics.py",
    "tests/search/training/test_networks.py",
    "tests/search/training/test_normalization.py",
    "tests/search/training/test_schedule.py",
    "tests/search/devices/test_devices.py",
]
TEST_S = 150  # a test that hangs must not cost what the others found


def suite(setting: Setting) -> Result:
    """Each once; those that fail are named."""
    files = FILES[2:3] if setting.quick else FILES
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        found = _pytest(setting, Path(folder), *files)
    line = f"{found['passed']} passed, {found['skipped']} skipped"
    if found["failed"]:
        return Result(False, f"{line}, {len(found['failed'])} failed: {', '.join(found['failed'])}", found)
    return Result(found["passed"] > 0, line, found)


def _pytest(setting: Setting, folder: Path, *options: str) -> dict[str, Any]:
    report = folder / "tests.xml"
    processes = 2 if setting.quick else min(12, max(2, 3 * len(os.sched_getaffinity(0)) // 4))
    command = [sys.executable, "-m", "pytest", "-q", "--numprocesses", str(processes)]
    command += ["--dist", "worksteal", "-m", "not long", "--tb=short", f"--junitxml={report}"]
    command += ["--timeout", str(TEST_S), "--durations", "10"]
    command += ["-o", f"cache_dir={folder / 'cache'}", *options]
    device = {"TEST_DEVICE": setting.slot.device, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    subprocess.run(command, cwd=ROOT, env=setting.environment | device, check=False)
    if not report.exists():
        sys.exit("error: pytest did not run; its output says why")
    return counted(report.read_text())


def counted(report: str) -> dict[str, Any]:
    """Of pytest's JUnit report: how many passed and were skipped, and what each failure said."""
    cases = list(ET.fromstring(report).iter("testcase"))
    failed: dict[str, str] = {}
    for case in cases:
        for kind in ("failure", "error"):
            for told in case.iter(kind):
                failed[str(case.get("name"))] = str(told.get("message"))[:300]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {"passed": len(cases) - len(failed) - skipped, "skipped": skipped, "failed": failed}
