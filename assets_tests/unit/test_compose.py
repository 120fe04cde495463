"""compose.yaml as a file: which settings reach the services, what builds an image, what stops a known password."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from boucle_adapters.environment import ENVIRONMENTS, OTHER_PROFILES, PROJECT_DIR, environment_file
from boucle_adapters.settings import Settings

FILE = Path(__file__).parents[2] / "compose.yaml"
# What the stack itself says, since paths, names and ports of its services depend on it.
FIXED = {
    "advertised_host", "code_server", "database_password", "database_password_file", "dbt_parse_dir",
    "grafana_password_file", "home", "host", "port", "project_dir", "replica", "shared_socket", "warehouse_dir",
}  # fmt: skip
OURS = ("boucle-platform", "boucle-serving")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load(FILE.read_text())["services"])


def ours(services: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: one for name, one in services.items() if any(image in one["image"] for image in OURS)}


def test_every_setting_that_a_user_exports_reaches_every_service_of_ours(services: dict[str, dict[str, Any]]):
    wanted = {f"BOUCLE_{name.upper()}" for name in Settings.model_fields if name not in FIXED}
    for name, one in ours(services).items():
        passed = {key for key, value in one["environment"].items() if re.fullmatch(rf"\$\{{{key}:-.*\}}", str(value))}
        assert passed == wanted, name
        assert one["environment"]["BOUCLE_ENVIRONMENT"] == "${BOUCLE_ENVIRONMENT:-${COMPOSE_PROFILES:-dev}}"


def test_a_profile_is_an_environment_or_known_to_be_none(services: dict[str, dict[str, Any]]):
    assert {profile for one in services.values() for profile in one.get("profiles", ())} == {
        *ENVIRONMENTS,
        *OTHER_PROFILES,
    }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_proxy_and_prometheus_ask_replicas_at_the_port_of_the_environment(
    services: dict[str, dict[str, Any]], environment: str
):
    port = yaml.safe_load(environment_file(PROJECT_DIR, environment).read_text())["port"]
    deploy = FILE.parent / "platform" / "deploy"
    assert f"serving:{port};" in (deploy / "proxy" / "nginx.conf").read_text()
    jobs = {
        job["job_name"]: job["dns_sd_configs"][0]["port"]
        for job in yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    }
    assert jobs == {"boucle-serving": port, "boucle-exporter": services["exporter"]["environment"]["BOUCLE_PORT"]}
    assert [name for name, one in ours(services).items() if "BOUCLE_PORT" in one["environment"]] == ["exporter"]


def test_one_service_builds_each_image_and_the_others_start_after_it(services: dict[str, dict[str, Any]]):
    """Two services that build one tag would race under `docker compose up --build`."""
    builders = {one["image"]: name for name, one in services.items() if "build" in one}
    assert Counter(one["image"] for one in services.values() if "build" in one) == dict.fromkeys(builders, 1)
    assert set(builders.values()) == {"settings", "serving-1"}
    assert {one["image"] for one in ours(services).values()} == set(builders)


def test_the_service_that_is_built_uses_the_dockerfile_of_its_image(services: dict[str, dict[str, Any]]):
    for name, folder in (("settings", "platform"), ("serving-1", "serving")):
        build = services[name]["build"]
        assert build["dockerfile"] == f"{folder}/deploy/Dockerfile"
        assert (FILE.parent / build["dockerfile"]).is_file()
        asked = re.findall(r"^ARG (\w+)", (FILE.parent / build["dockerfile"]).read_text(), re.MULTILINE)
        assert set(build["args"]) == set(asked)


@pytest.mark.parametrize("folder", ["platform", "serving"])
def test_an_image_is_built_in_stages_on_a_base_that_is_named_and_is_nobody_s_root(folder: str):
    lines = (FILE.parent / folder / "deploy" / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("# syntax=")] == []  # it would fetch a parser from a registry
    stages = [number for number, line in enumerate(lines) if line.startswith("FROM ")]
    assert [lines[number] for number in stages] == ["FROM ${BASE_IMAGE} AS tools", "FROM ${BASE_IMAGE}"]
    final = "\n".join(lines[stages[-1] :])
    assert re.findall(r"^USER (.*)", final, re.MULTILINE) == ["10001:10001"]
    assert re.search(r"^HEALTHCHECK .*CMD", final, re.MULTILINE)
    assert not re.search(r"^RUN", final[final.index("\nUSER ") :], re.MULTILINE)


def test_all_that_is_ours_and_what_faces_callers_is_hardened(services: dict[str, dict[str, Any]]):
    for name, one in {**ours(services), "proxy": services["proxy"], "prometheus": services["prometheus"]}.items():
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name


def test_every_service_waits_for_the_look_at_the_settings(services: dict[str, dict[str, Any]]):
    def before(name: str) -> set[str]:
        direct = set(services[name].get("depends_on", {}))
        return direct.union(*(before(one) for one in direct))

    assert [name for name in set(services) - before("settings") - {"settings"} if "settings" not in before(name)] == []


def test_a_profile_that_is_asked_for_is_held_against_the_environment(services: dict[str, dict[str, Any]]):
    """The flag chooses services and not values: the profile of production is no reason to believe in its settings."""
    waits = services["settings"]["depends_on"]
    names = sorted(file.stem for file in (FILE.parent / "platform/deploy/environments").glob("*.yaml"))
    assert sorted(waits) == [f"profile-{name}" for name in names]
    for name in names:
        one = services[f"profile-{name}"]
        assert one["profiles"] == [name]
        assert one["command"] == ["doctor", "--only", "settings", "--expect", name]
        assert waits[f"profile-{name}"] == {"condition": "service_completed_successfully", "required": False}


def test_grafana_starts_only_after_its_password_was_looked_at(services: dict[str, dict[str, Any]]):
    looked, grafana = services["grafana-settings"], services["grafana"]
    assert grafana["depends_on"]["grafana-settings"] == {"condition": "service_completed_successfully"}
    assert looked["command"] == ["doctor", "--only", "settings"]
    place = looked["environment"]["BOUCLE_GRAFANA_PASSWORD_FILE"]
    assert place == grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"]
    assert "grafana_password" in looked["secrets"]
    assert looked["profiles"] == grafana["profiles"]


def test_a_replica_takes_the_callers_address_from_the_proxy_alone(services: dict[str, dict[str, Any]]):
    """Without it all callers behind the proxy are one address, and have one rate together."""
    proxy = (FILE.parent / "platform/deploy/proxy/nginx.conf").read_text()
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in proxy
    for name in ("serving-1", "serving-2"):
        assert services[name]["environment"]["FORWARDED_ALLOW_IPS"] == "*"
        assert "ports" not in services[name]
