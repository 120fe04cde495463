"""Where no container engine is, `make smoke` says loudly that the stack was not tested: nobody takes it for a pass."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from assets_tests.smoke.engine import ROOT

pytestmark = pytest.mark.integration


def helper(folder: Path) -> Path:
    """One that starts no engine, and says why."""
    file = folder / "containers"
    file.write_text("#!/bin/sh\n[ \"$1\" = up ] && { echo 'may not start one' >&2; exit 3; }\nexit 0\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("helped", [False, True])
def test_without_an_engine_the_summary_says_that_nothing_was_tested(tmp_path: Path, helped: bool):
    file = helper(tmp_path) if helped else tmp_path / "nowhere"
    nobody = {"DOCKER_HOST": f"unix://{tmp_path}/nobody.sock", "BOUCLE_CONTAINERS": str(file)}
    command = [sys.executable, "-m", "pytest", "-m", "smoke", "assets_tests/smoke", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **nobody}, capture_output=True, text=True, timeout=240, check=False
    )
    assert "THE STACK WAS NOT TESTED" in done.stdout, done.stdout
    said = "exit code 3: may not start one" if helped else f"there is no helper at {file}"
    assert said in done.stdout
    assert "passed" not in done.stdout
