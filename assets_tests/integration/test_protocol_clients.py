"""The clients that people have already, unchanged, against a real serving process."""

import json
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

from assets_tests.bundles import MODEL, publish_users
from assets_tests.replica import Replica, wait_for
from boucle_adapters.sql_state import SqlStateStore

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # gevent's own, at import
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
CURL = shutil.which("curl")
ROWS = pd.DataFrame({"user_id": ["4", "7"], "as_of": ["1997-11-01", "1997-11-01"]})


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    replica = Replica(tmp_path_factory.mktemp("protocols"))
    publish_users(replica.settings.online_dir / MODEL)
    state = SqlStateStore.create(replica.settings.state_store_url)
    replica.promote(state, 1)
    replica.start()
    try:
        wait_for(lambda: replica.version() == 1)
        yield replica
    finally:
        replica.kill()
        state.close()


@pytest.fixture(scope="module")
def expected(replica: Replica) -> list[float]:
    """What boucle's own protocol answers."""
    path = f"{replica.address}/models/{MODEL}/predict/batch"
    return [row["proba"] for row in httpx.post(path, json={"rows": ROWS.to_dict("records")}).json()["rows"]]


@pytest.fixture
def client(replica: Replica) -> Iterator[Any]:
    client = triton.InferenceServerClient(urlsplit(replica.address).netloc)
    yield client
    client.close()


def inputs(rows: pd.DataFrame, *, binary: bool) -> list[Any]:
    tensors = []
    for name in rows:
        tensor = triton.InferInput(str(name), [len(rows)], "BYTES")
        tensor.set_data_from_numpy(rows[name].to_numpy(dtype=np.object_), binary_data=binary)
        tensors.append(tensor)
    return tensors


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
def test_curl(replica: Replica, expected: list[float]):
    assert all(0 < proba < 1 for proba in expected)
    options = ["--silent", "--show-error", "--max-time", "10", "--header", "content-type: application/json"]
    body = json.dumps({"dataframe_records": ROWS.to_dict("records")})
    done = subprocess.run(
        [str(CURL), *options, "--data", body, f"{replica.address}/invocations"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["predictions"] == expected


def test_mlflow_s_scoring_client(replica: Replica, expected: list[float]):
    at = urlsplit(replica.address)
    client = ScoringServerClient(at.hostname, at.port)
    client.wait_server_ready(timeout=10, scoring_server_proc=replica.process)
    found = client.invoke(ROWS).get_predictions()
    assert found.iloc[:, 0].tolist() == expected


@pytest.mark.parametrize("binary", [True, False], ids=["bytes after the JSON", "JSON"])
def test_triton_s_client_infers(client: Any, expected: list[float], binary: bool):
    found = client.infer(MODEL, inputs(ROWS, binary=binary), request_id="q-1")
    assert found.as_numpy("proba").tolist() == expected
    assert found.as_numpy("model_version").tolist() == [1, 1]
    assert (found.get_response()["id"], found.get_response()["model_version"]) == ("q-1", "1")
    wanted = triton.InferRequestedOutput("proba", binary_data=binary)
    assert client.infer(MODEL, inputs(ROWS, binary=binary), outputs=[wanted]).as_numpy("proba").tolist() == expected


def test_triton_s_client_asks_what_is_there(client: Any):
    assert (client.is_server_live(), client.is_server_ready()) == (True, True)
    assert [client.is_model_ready(MODEL, version) for version in ("", "1", "2")] == [True, True, False]
    assert client.get_server_metadata()["name"] == "boucle"
    assert [tensor["name"] for tensor in client.get_model_metadata(MODEL)["inputs"]] == list(ROWS)


def test_triton_s_client_reads_why_there_is_no_answer(client: Any):
    with pytest.raises(InferenceServerException, match=r"row 1: .*99") as raised:
        client.infer(MODEL, inputs(ROWS.assign(user_id=["4", "99"]), binary=True))
    assert raised.value.status() == "404"
