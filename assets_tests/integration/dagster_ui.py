"""What a person clicks in the Dagster UI, as the GraphQL that the page itself sends."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

REPOSITORY = {"repositoryLocationName": "boucle", "repositoryName": "__repository__"}
FINISHED = {"SUCCESS", "FAILURE", "CANCELED"}


@dataclass(frozen=True)
class DagsterUI:
    """A running webserver."""

    url: str

    def ask(self, query: str, **variables: Any) -> Any:
        """The data of one GraphQL query."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=150) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def launch(self, job: str, partition: str = "", only: Sequence[Sequence[str]] = ()) -> str:
        """Launch a job, for one partition and with only these assets where given; returns the run's id."""
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        answer = self.ask(
            """mutation($run: ExecutionParams!) { launchRun(executionParams: $run) {
                 __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            run={
                "selector": {
                    **REPOSITORY,
                    "jobName": job,
                    **({"assetSelection": [{"path": list(path)} for path in only]} if only else {}),
                },
                "executionMetadata": {"tags": tags},
                "runConfigData": {},
            },
        )["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def finish(self, run_id: str, *, timeout: float) -> str:
        """Wait for the end of a run; returns its status."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            query = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
            status = self.ask(query, id=run_id)["runOrError"]["status"]
            if status in FINISHED:
                return str(status)
            time.sleep(0.3)
        raise AssertionError(f"run {run_id} did not finish within {timeout} s")

    def switch_on(self, sensor: str) -> None:
        """Start a sensor."""
        answer = self.ask(
            """mutation($sensor: SensorSelector!) { startSensor(sensorSelector: $sensor) {
                 __typename ... on PythonError { message } } }""",
            sensor={**REPOSITORY, "sensorName": sensor},
        )["startSensor"]
        assert answer["__typename"] == "Sensor", answer

    def runs(self) -> list[tuple[str, str]]:
        """Job and status of every run, newest first."""
        found = self.ask("query { runsOrError(limit: 50) { ... on Runs { results { jobName status } } } }")
        return [(run["jobName"], run["status"]) for run in found["runsOrError"]["results"]]

    def metadata(self, *path: str) -> dict[str, Any]:
        """Labels and values of the newest materialisation of an asset."""
        found = self.ask(
            """query($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset {
                 assetMaterializations(limit: 1) { metadataEntries { label
                   ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text }
                   ... on MarkdownMetadataEntry { mdStr } ... on PathMetadataEntry { path }
                   ... on BoolMetadataEntry { boolValue } ... on FloatMetadataEntry { floatValue } } } } } }""",
            key={"path": list(path)},
        )["assetOrError"]["assetMaterializations"]
        assert found, f"{'/'.join(path)} was never materialised"
        entries = found[0]["metadataEntries"]
        return {e["label"]: next((v for k, v in e.items() if k != "label"), None) for e in entries}

    def checks(self, *path: str) -> dict[str, dict[str, Any]]:
        """The newest execution of each check of an asset: status and description."""
        found = self.ask(
            """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
                 assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization {
                   status evaluation { description severity metadataEntries { label
                     ... on FloatMetadataEntry { floatValue } ... on TextMetadataEntry { text } } } } } } } } } }""",
            key={"path": list(path)},
        )["assetNodeOrError"]["assetChecksOrError"]["checks"]
        return {check["name"]: check["executionForLatestMaterialization"] for check in found}

    def measured(self, *path: str) -> dict[str, float]:
        """The measured value of each check of an asset, where it has one."""
        return {
            name: entry["floatValue"]
            for name, check in self.checks(*path).items()
            for entry in check["evaluation"]["metadataEntries"]
            if entry["label"] == "measured"
        }


def get(url: str) -> dict[str, Any]:
    """A JSON document."""
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def predict(api: str, **body: str) -> tuple[int, dict[str, Any]]:
    """Status and answer of `POST /predict`."""
    request = urllib.request.Request(f"{api}/predict", json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
