"""Settings come from the environment; what is wrong is one line that names the variable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from baserunner.place import read_data_dir
from baserunner.problems import SettingsProblem
from baserunner.settings import LocalApi, read_settings

CANARY = "bjt_canary-canary-canary-canary-canary-canary-1"


def test_the_one_setting_that_must_be_there_is_cloudlys_address() -> None:
    settings = read_settings({"BASEOS_CLOUDLY_URL": "https://cloudly.example/"})

    assert settings.cloudly_url == "https://cloudly.example"
    assert settings.home == Path("/data/baseos")
    assert settings.join_token is None
    assert settings.heartbeat_min_s == 1.0


@pytest.mark.parametrize(
    ("environment", "variable"),
    [
        ({}, "BASEOS_CLOUDLY_URL"),
        ({"BASEOS_CLOUDLY_URL": "cloudly.example"}, "BASEOS_CLOUDLY_URL"),
        ({"BASEOS_CLOUDLY_URL": "http://[::1"}, "BASEOS_CLOUDLY_URL"),
        ({"BASEOS_CLOUDLY_URL": "http://cloudly.example:99999"}, "BASEOS_CLOUDLY_URL"),
        ({"BASEOS_CLOUDLY_URL": f"https://me:{CANARY}@cloudly.example"}, "BASEOS_CLOUDLY_URL"),
        ({"BASEOS_CLOUDLY_URL": f"https://cloudly.example?token={CANARY}"}, "BASEOS_CLOUDLY_URL"),
        ({"BASEOS_JOIN_TOKEN": f"{CANARY} and more"}, "BASEOS_JOIN_TOKEN"),
        ({"BASEOS_HEARTBEAT_MIN_S": "often"}, "BASEOS_HEARTBEAT_MIN_S"),
        ({"BASEOS_HEARTBEAT_MIN_S": "nan"}, "BASEOS_HEARTBEAT_MIN_S"),
        ({"BASEOS_HEARTBEAT_MIN_S": "-1"}, "BASEOS_HEARTBEAT_MIN_S"),
        ({"BASEOS_LOG_LEVEL": "LOUD"}, "BASEOS_LOG_LEVEL"),
        ({"BALENA_SUPERVISOR_ADDRESS": "http://127.0.0.1:48484"}, "BALENA_SUPERVISOR_API_KEY"),
        ({"BALENA_SUPERVISOR_API_KEY": "abcdef0123"}, "BALENA_SUPERVISOR_ADDRESS"),
        ({"BALENA_DEVICE_UUID": "../../etc"}, "BALENA_DEVICE_UUID"),
        ({"SERVEZONE_RUNTIME": "docker"}, "SERVEZONE_RUNTIME"),
        ({"BASEOS_LOCAL_API_DIR": "run/baseos"}, "BASEOS_LOCAL_API_DIR"),
        ({"BASEOS_LOCAL_API_PORT": "48485"}, "BASEOS_LOCAL_API_DIR"),
        ({"BASEOS_LOCAL_API_DIR": "/run/b", "BASEOS_LOCAL_API_PORT": "0"}, "BASEOS_LOCAL_API_PORT"),
        (
            {"BASEOS_LOCAL_API_DIR": "/run/b", "BASEOS_LOCAL_API_UIDS": "0,me"},
            "BASEOS_LOCAL_API_UIDS",
        ),
        (
            {"BASEOS_LOCAL_API_DIR": "/run/b", "BASEOS_LOCAL_API_GROUP": "-1"},
            "BASEOS_LOCAL_API_GROUP",
        ),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it_and_shows_no_secret(
    environment: dict[str, str], variable: str
) -> None:
    whole = {"BASEOS_CLOUDLY_URL": "https://cloudly.example"} if environment else {}

    with pytest.raises(SettingsProblem) as problem:
        read_settings({**whole, **environment})

    assert variable in str(problem.value)
    assert "\n" not in str(problem.value)
    assert CANARY not in str(problem.value)


def test_secrets_are_taken_out_of_the_environment_and_shown_by_no_repr() -> None:
    environment = {
        "BASEOS_CLOUDLY_URL": "https://cloudly.example",
        "BASEOS_JOIN_TOKEN": CANARY,
        "BALENA_SUPERVISOR_ADDRESS": "http://127.0.0.1:48484",
        "BALENA_SUPERVISOR_API_KEY": "supervisorcanary",
    }

    settings = read_settings(environment)

    assert settings.join_token is not None
    assert settings.join_token.get_secret_value() == CANARY
    assert "BASEOS_JOIN_TOKEN" not in environment
    assert "BALENA_SUPERVISOR_API_KEY" not in environment
    assert CANARY not in repr(settings)
    assert "supervisorcanary" not in repr(settings)


def test_reading_a_journal_needs_no_settings_but_the_data_directory() -> None:
    assert read_data_dir({}) == Path("/data")
    assert read_data_dir({"BASEOS_DATA_DIR": "/elsewhere"}) == Path("/elsewhere")


def test_there_is_no_local_api_unless_it_has_a_place_and_then_it_is_for_us_and_root() -> None:
    cloudly = {"BASEOS_CLOUDLY_URL": "https://cloudly.example"}

    without = read_settings(dict(cloudly))
    usual = read_settings({**cloudly, "BASEOS_LOCAL_API_DIR": "/run/baseos"})
    chosen = read_settings(
        {
            **cloudly,
            "BASEOS_LOCAL_API_DIR": "/run/baseos",
            "BASEOS_LOCAL_API_UIDS": "1001, 1002",
            "BASEOS_LOCAL_API_GROUP": "4242",
            "BASEOS_LOCAL_API_PORT": "48485",
        }
    )

    place = Path("/run/baseos")
    assert without.local_api is None
    assert usual.local_api == LocalApi(place, frozenset({0, os.geteuid()}))
    assert chosen.local_api == LocalApi(place, frozenset({1001, 1002}), group=4242, port=48485)
