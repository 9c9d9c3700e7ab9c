"""Commands as a user without a name, a home or a right to write: what a container with a user id of its own runs as."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from conftest import Ran

UID = "54321"
# It may read everything, since Python itself may lie in a folder that is closed to others; it may write nowhere.
READ_ALL = "-all,+dac_read_search"


def run_as_stranger(*arguments: str, **environment: str) -> Ran:
    """`affinity-search ARGUMENTS` in an empty environment."""
    become = ["setpriv", "--reuid", UID, "--regid", UID, "--clear-groups"]
    become += ["--inh-caps", READ_ALL, "--ambient-caps", READ_ALL]
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root may run a command as another user, with setpriv")
    if subprocess.run([*become, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this root may not hand its right to read on")
    command = [*become, sys.executable, "-P", "-m", "affinity_search", *arguments]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=300, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)
