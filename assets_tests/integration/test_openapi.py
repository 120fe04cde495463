"""The API as its OpenAPI document promises it, asked by schemathesis: valid, invalid, odd and stateful requests."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from assets_tests.bundles import MODEL, publish_users
from assets_tests.replica import Replica, wait_for
from boucle_adapters.sql_state import SqlStateStore
from boucle_adapters.tokens import Role, TokenStore

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
SCHEMATHESIS = str(Path(sys.executable).parent / "st")
# The name of the entity key is the model's own, so that the document cannot say all that makes a request valid.
NOT_SAID = "positive_data_acceptance"
TOO_LARGE_IS_REFUSED_TOO = """
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "409", "413", "415", "422", "503"]
"""


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    """Two versions were promoted: there is something to roll back."""
    replica = Replica(tmp_path)
    publish_users(replica.settings.online_dir / MODEL)
    state = SqlStateStore.create(replica.settings.state_store_url)
    for version in (1, 2):
        replica.promote(state, version)
    state.close()
    replica.start()
    wait_for(lambda: replica.version() == 2)
    yield replica
    replica.kill()


def test_every_route_keeps_what_it_promises_and_none_fails(replica: Replica, tmp_path: Path):
    token = TokenStore(replica.settings.tokens_file).add("user:ada", list(Role))  # or a route is never past its door
    pin, bearer = f"{replica.address}/models/{MODEL}/pin", {"authorization": f"Bearer {token}"}
    wait_for(lambda: httpx.post(pin, json={}, headers=bearer).status_code == 422)  # it heard of the token
    (tmp_path / "schemathesis.toml").write_text(TOO_LARGE_IS_REFUSED_TOO)
    run = subprocess.run(
        [
            *(SCHEMATHESIS, "run", f"{replica.address}/openapi.json", "--no-color", "--generation-deterministic"),
            *("--checks", "all", "--exclude-checks", NOT_SAID, "--max-examples", "12"),
            *("--header", f"Authorization: Bearer {token}"),
        ],
        cwd=tmp_path,
        env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "examples")},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-5_000:] + run.stderr[-1_000:]
    assert re.search(r"Tested: (\d\d)", run.stdout), run.stdout[-2_000:]
