"""The check of a GPU, as far as a machine without one can tell: it must work the first time that it meets one."""

import argparse
import subprocess
import sys
import time

import psutil
import pytest
from making import ROOT
from waiting import until

from affinity_search.search.devices import nvidia
from affinity_search.search.worker.exits import Exit
from benchmarks.gpu_check import __main__ as check
from benchmarks.gpu_check.launches import judged_memory
from benchmarks.gpu_check.probe import digest
from benchmarks.gpu_check.setting import Result, Setting
from benchmarks.gpu_check.suite import FILES, counted

FULL = "error: gpu:0 ran out of memory twice: H100 ran out of memory (RESOURCE_EXHAUSTED); use fewer workers"


@pytest.mark.parametrize(
    ("code", "said", "ok"),
    [
        (Exit.OUT_OF_MEMORY, f"created study 'check'\n{FULL}\n", True),
        (Exit.FAILED, f"{FULL}\n", False),
        (Exit.OUT_OF_MEMORY, f"Traceback (most recent call last):\n{FULL}\n", False),
        (Exit.OUT_OF_MEMORY, "error: something else\n", False),
        (Exit.OUT_OF_MEMORY, "", False),
    ],
)
def test_a_gpu_without_room_must_be_told_in_one_line(code: Exit, said: str, ok: bool) -> None:
    assert judged_memory(code, said, 1.0).ok == ok


def test_what_the_tests_came_to_is_read_from_their_report() -> None:
    report = """<testsuites><testsuite>
      <testcase name="good"/><testcase name="other"/><testcase name="out"><skipped/></testcase>
      <testcase name="bad"><failure message="assert 1 == 2"/></testcase>
      <testcase name="worse"><error message="no device"/></testcase>
    </testsuite></testsuites>"""
    assert counted(report) == {"passed": 2, "skipped": 1, "failed": {"bad": "assert 1 == 2", "worse": "no device"}}


def test_the_tests_are_those_of_make_test_jax() -> None:
    (target,) = (part for part in (ROOT / "Makefile").read_text().split("\n\n") if part.startswith("test-jax:"))
    assert all((ROOT / file).exists() for file in FILES)
    names = {file.rpartition("/")[2].removeprefix("test_") for file in FILES}
    assert {name for name in names if name in target} == names
    assert target.count(".py") == len(FILES)


def test_one_bit_of_a_weight_changes_the_digest() -> None:
    assert digest({"a": [0.0], "b": [1.0]}) == digest({"b": [1.0], "a": [0.0]})
    assert digest({"a": [0.0]}) != digest({"a": [-0.0]})


def test_a_part_that_takes_too_long_is_ended_with_all_that_it_began() -> None:
    child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], "
    child += "start_new_session=True).wait()"
    process = subprocess.Popen([sys.executable, "-c", child])
    (grandchild,) = until(psutil.Process(process.pid).children, "what it begins")
    began = time.monotonic()
    assert check.ended(process, 0.1) is None
    assert time.monotonic() - began < check.GRACE_S
    assert process.returncode is not None
    assert not grandchild.is_running()


def test_a_part_that_fails_is_a_row_of_the_table() -> None:
    """What it needs is not there, and it says so; the part after it has its own row."""
    setting = Setting("cpu", ROOT / "no-such-folder", quick=True)
    failed = check.run_part(setting, time.monotonic() + 60, "rate")
    assert not failed.result.ok
    found = {"rate": failed, "memory": check.Found(Result(True, "fine"), 1.0, "")}
    rows = check.table(found).splitlines()
    assert rows[2].startswith("| rate | **not ok** |")
    assert "exit code 1" in rows[2]
    assert rows[3] == "| memory | ok | 1 | fine |"


def test_parts_are_taken_in_their_order_and_unknown_ones_refused() -> None:
    assert check.parts_of("rate,tests") == ["tests", "rate"]
    with pytest.raises(argparse.ArgumentTypeError, match="unknown part 'speed'"):
        check.parts_of("tests,speed")


def test_without_a_gpu_it_ends_with_one_line() -> None:
    if nvidia.gpus():
        pytest.skip("this machine has a GPU")
    command = [sys.executable, "-m", "benchmarks.gpu_check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert done.stderr.startswith("error: no GPU found: NVML finds no NVIDIA GPU")
