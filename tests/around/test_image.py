"""The Dockerfile and the compose files say what the design says. (That they run was seen by hand: docs/image.md.)"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import baserunner
from cloudly.balena.compose.notes import BadCompose
from cloudly.balena.compose.read import read_compose

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILES = ("docker-compose.yml", "compose.dev.yml")

# What the Supervisor keeps of a service (its src/compose/sanitise.ts); anything else is dropped with a warning.
KEPT_BY_THE_SUPERVISOR = {
    *("build", "cap_add", "cap_drop", "environment", "labels", "mem_limit", "pids_limit"),
    *("read_only", "restart", "security_opt", "stop_grace_period", "tty", "ulimits"),
    "volumes",
}


def compose(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def stages() -> dict[str, str]:
    """The Dockerfile's stages by name."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    found = re.split(r"^FROM \S+ AS (\S+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


@pytest.fixture
def agent() -> Any:
    return compose("docker-compose.yml")["services"]["baserunner"]


def test_the_fleet_app_uses_only_fields_that_the_supervisor_keeps(agent: Any) -> None:
    assert set(agent) <= KEPT_BY_THE_SUPERVISOR


def test_the_data_is_in_a_named_volume_because_the_supervisor_ignores_bind_mounts(
    agent: Any,
) -> None:
    mounted = ["baseos-data:/data", "neighbour:/run/baseos"]
    assert [one for one in agent["volumes"] if isinstance(one, str)] == mounted
    assert set(compose("docker-compose.yml")["volumes"]) == {"baseos-data", "neighbour"}


def test_the_desks_neighbour_reaches_the_agent_where_it_serves_and_cannot_write_there(
    agent: Any,
) -> None:
    neighbour = compose("compose.dev.yml")["services"]["neighbour"]

    place = agent["environment"]["BASEOS_LOCAL_API_DIR"]
    assert f"neighbour:{place}:ro" in neighbour["volumes"]
    assert neighbour["environment"]["BASEOS_AGENT_URL"] == f"unix://{place}/agent.sock"


def test_the_supervisors_address_and_key_are_asked_for_by_label(agent: Any) -> None:
    assert agent["labels"]["io.balena.features.supervisor-api"] == "1"


def test_the_container_can_write_to_nothing_but_its_volume_and_its_tmp(agent: Any) -> None:
    assert agent["read_only"] is True
    (tmp,) = [one for one in agent["volumes"] if isinstance(one, dict)]
    assert tmp == {"type": "tmpfs", "target": "/tmp", "tmpfs": {"size": 8_388_608}}  # noqa: S108 - the mount point
    assert agent["tty"] is False


def test_the_container_has_only_the_capabilities_that_the_entrypoint_uses(agent: Any) -> None:
    assert agent["cap_drop"] == ["ALL"]
    assert set(agent["cap_add"]) == {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
    assert agent["security_opt"] == ["no-new-privileges"]
    assert agent["ulimits"] == {"core": 0}


def test_the_fleet_app_is_a_release_once_its_image_is_named_by_digest() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    image = "registry.example/v2/agent@sha256:" + "a1" * 32
    built = re.sub(r"    build:\n(      .*\n)+", f"    image: {image}\n", text)

    composed = read_compose(built.encode())

    assert composed.warnings == ()
    assert [one.name for one in composed.services] == ["baserunner"]
    with pytest.raises(BadCompose, match="build"):
        read_compose(text.encode())


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_no_secret_stands_in_a_compose_file(name: str) -> None:
    for service in compose(name)["services"].values():
        for variable, value in service.get("environment", {}).items():
            if variable.endswith(("_TOKEN", "_KEY")):
                assert str(value).startswith("${"), variable


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_every_service_is_built_from_a_stage_of_the_dockerfile(name: str) -> None:
    services = compose(name)["services"].values()

    targets = {service["build"]["target"] for service in services if "extends" not in service}

    assert targets <= set(stages())


def test_the_agent_on_a_desk_is_the_agent_of_the_fleet_app() -> None:
    assert compose("compose.dev.yml")["services"]["baserunner"]["extends"] == {
        "file": "docker-compose.yml",
        "service": "baserunner",
    }


def test_the_device_image_gets_the_devices_rooms_and_packages_only() -> None:
    before_the_device_wheel = stages()["wheels"].partition("-d /wheels/device")[0]
    copied = set(re.findall(r"^COPY (\w+) \w+$", before_the_device_wheel, flags=re.MULTILINE))

    assert copied == {"journal", "interfaces", "baserunner"}
    assert "/wheels/device" in stages()["device-packages"]
    assert re.findall(r"requirements/\w+\.lock", stages()["device-packages"]) == [
        "requirements/device.lock"
    ]


def test_everything_that_is_copied_into_an_image_exists_and_is_let_through() -> None:
    through = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    for stage in stages().values():
        for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", stage, flags=re.MULTILINE):
            for name in copied.split():
                assert (ROOT / name).exists(), name
                assert f"!{name.split('/')[0]}" in through


def test_the_agent_and_the_distribution_have_one_version() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert pyproject["project"]["version"] == baserunner.__version__
