"""The agent's settings: the only reader of the environment.

Secrets are read once and taken out of the environment of this process, so that no child inherits them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from baserunner.boot_config import read_boot_config
from baserunner.place import home_in, read_data_dir
from baserunner.problems import SettingsProblem

T = TypeVar("T")
Environment = MutableMapping[str, str]

SECRETS = ("BASEOS_JOIN_TOKEN", "BALENA_SUPERVISOR_API_KEY")


@dataclass(frozen=True, slots=True)
class LocalApi:
    """Where a neighbour app may ask, and who may."""

    directory: Path
    uids: frozenset[int]
    """Who may ask over the socket."""
    group: int | None = None
    """Who may reach the socket and read the token, besides our own uid."""
    port: int | None = None
    """On 127.0.0.1, besides the socket."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the deployer decided. Durations in seconds."""

    cloudly_url: str
    data_dir: Path
    lock_dir: Path
    join_token: SecretStr | None
    supervisor_address: str | None
    supervisor_key: SecretStr | None
    device_uuid: str | None
    runtime: str | None
    heartbeat_min_s: float
    """Never more often than this. How often is Cloudly's to say, in each answer."""
    supervisor_poll_s: float
    """How often the Supervisor is asked while an update is under way."""
    log_level: str
    anchor_dir: Path | None = None
    """Outside the data directory: where to hold how far the journal had come."""
    cloudly_ca: str | None = None
    """PEM of a CA to trust for Cloudly, beside the public ones."""
    local_api: LocalApi | None = None
    """None: there is none."""

    @property
    def home(self) -> Path:
        return home_in(self.data_dir)


def read_settings(environment: Environment) -> Settings:
    """Settings from the environment; the secrets are removed from it.

    Raises SettingsProblem: one line that names the variable and gives an example.
    """
    values = _with_boot_config(
        {name: value.strip() for name, value in environment.items() if value.strip()}
    )
    for name in SECRETS:
        environment.pop(name, None)
    settings = Settings(
        cloudly_url=_url(values, "BASEOS_CLOUDLY_URL", "https://cloudly.example"),
        data_dir=read_data_dir(values),
        lock_dir=Path(values.get("BASEOS_LOCK_DIR", "/tmp/balena")),  # noqa: S108 - the Supervisor's own place
        join_token=_secret(values, "BASEOS_JOIN_TOKEN", r"[A-Za-z0-9_-]{20,200}"),
        supervisor_address=_optional_url(values, "BALENA_SUPERVISOR_ADDRESS"),
        supervisor_key=_secret(values, "BALENA_SUPERVISOR_API_KEY", r"\w{1,200}"),
        device_uuid=_matching(values, "BALENA_DEVICE_UUID", r"[0-9a-f]{32}([0-9a-f]{30})?"),
        runtime=values.get("SERVEZONE_RUNTIME"),
        heartbeat_min_s=_seconds(values, "BASEOS_HEARTBEAT_MIN_S", 1.0),
        supervisor_poll_s=_seconds(values, "BASEOS_SUPERVISOR_POLL_S", 2.0),
        log_level=_choice(values, "BASEOS_LOG_LEVEL", ("INFO", "DEBUG", "WARNING", "ERROR")),
        anchor_dir=_directory(values, "BASEOS_ANCHOR_DIR"),
        cloudly_ca=_certificate(values, "BASEOS_CLOUDLY_CA"),
        local_api=_local_api(values),
    )
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    if (settings.supervisor_address is None) != (settings.supervisor_key is None):
        missing = (
            "BALENA_SUPERVISOR_ADDRESS"
            if settings.supervisor_address is None
            else "BALENA_SUPERVISOR_API_KEY"
        )
        raise SettingsProblem(
            f"{missing} is missing while its partner is set: the Supervisor needs both "
            "(label the service io.balena.features.supervisor-api: '1')"
        )
    if settings.runtime not in {None, "baseos"}:
        raise SettingsProblem(
            "SERVEZONE_RUNTIME says this is another runtime; for this agent: "
            "SERVEZONE_RUNTIME=baseos"
        )


def _local_api(values: Environment) -> LocalApi | None:
    directory = _directory(values, "BASEOS_LOCAL_API_DIR", "/run/baseos")
    group = _number(values, "BASEOS_LOCAL_API_GROUP", 0, 2**32 - 2, "4242")
    port = _number(values, "BASEOS_LOCAL_API_PORT", 1, 65_535, "48485")
    uids = _uids(values, "BASEOS_LOCAL_API_UIDS")
    if directory is None:
        for name in ("GROUP", "PORT", "UIDS"):
            if f"BASEOS_LOCAL_API_{name}" in values:
                raise SettingsProblem(
                    f"BASEOS_LOCAL_API_{name} is set without BASEOS_LOCAL_API_DIR, where the socket and the "
                    "token are; for example BASEOS_LOCAL_API_DIR=/run/baseos"
                )
        return None
    return LocalApi(directory, uids, group=group, port=port)


def _uids(values: Environment, name: str) -> frozenset[int]:
    raw = values.get(name)
    if raw is None:
        return frozenset({0, os.geteuid()})
    words = [word.strip() for word in raw.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,10}", word) for word in words):
        raise SettingsProblem(f"{name} is malformed: it must be uids; for example {name}=0,1001")
    return frozenset(map(int, words))


def _number(values: Environment, name: str, least: int, most: int, example: str) -> int | None:
    raw = values.get(name)
    if raw is None:
        return None
    if not re.fullmatch(r"[0-9]{1,10}", raw) or not least <= int(raw) <= most:
        raise SettingsProblem(
            f"{name} must be a number from {least} to {most}; for example {name}={example}"
        )
    return int(raw)


def _url(values: Environment, name: str, example: str) -> str:
    raw = values.get(name)
    if raw is None:
        raise SettingsProblem(f"{name} is missing; for example {name}={example}")
    malformed = SettingsProblem(f"{name} is not an http(s) address; for example {name}={example}")
    try:
        parts = urlsplit(raw)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an address in brackets that is none, a port beyond 65535
        raise malformed from None
    if not whole:
        raise malformed
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingsProblem(
            f"{name} may hold no user, query or fragment; for example {name}={example}"
        )
    return raw.rstrip("/")


def _optional_url(values: Environment, name: str) -> str | None:
    return _url(values, name, "http://127.0.0.1:48484") if name in values else None


def _matching(values: Environment, name: str, pattern: str) -> str | None:
    raw = values.get(name)
    if raw is not None and not re.fullmatch(pattern, raw):
        raise SettingsProblem(f"{name} is malformed: it must match {pattern}")
    return raw


def _secret(values: Environment, name: str, pattern: str) -> SecretStr | None:
    raw = _matching(values, name, pattern)
    return None if raw is None else SecretStr(raw)


def _parsed(values: Environment, name: str, parse: Callable[[str], T], default: T, hint: str) -> T:
    raw = values.get(name)
    if raw is None:
        return default
    try:
        return parse(raw)
    except ValueError:
        raise SettingsProblem(f"{name} is malformed: it must be {hint}") from None


def _seconds(values: Environment, name: str, default: float) -> float:
    seconds = _parsed(values, name, float, default, f"seconds; for example {name}={default:g}")
    if not 0.01 <= seconds <= 86_400:
        raise SettingsProblem(
            f"{name} must lie between 0.01 and 86400 seconds; default {default:g}"
        )
    return seconds


def _directory(values: Environment, name: str, example: str = "/anchor") -> Path | None:
    raw = values.get(name)
    if raw is not None and not raw.startswith("/"):
        raise SettingsProblem(f"{name} must be a whole path; for example {name}={example}")
    return Path(raw) if raw else None


def _certificate(values: Environment, name: str) -> str | None:
    raw = values.get(name)
    if raw is None:
        return None
    from baserunner.trust import read_ca  # loads TLS, which an agent without it need not

    try:
        return read_ca(raw)
    except OSError as error:
        raise SettingsProblem(f"{name}: its file cannot be read: {error.strerror}") from None
    except ValueError as problem:
        raise SettingsProblem(
            f"{name} is malformed: {problem}; give what `cloudly ca show --base64` prints, or a file"
        ) from None


def _with_boot_config(values: dict[str, str]) -> dict[str, str]:
    """What the host's config.json says of Cloudly, where it is mounted; a variable of the same meaning wins."""
    where = _directory(values, "BASEOS_CONFIG_JSON")
    return values if where is None else read_boot_config(where) | values


def _choice(values: Environment, name: str, allowed: tuple[str, ...]) -> str:
    raw = values.get(name, allowed[0]).upper()
    if raw not in allowed:
        raise SettingsProblem(f"{name} must be one of {', '.join(allowed)}; default {allowed[0]}")
    return raw
