"""Cloudly's settings; the only reader of the environment."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloudly.problems import BadSettings

# fmt: off
VARIABLES = {
    "data_dir":          ("CLOUDLY_DATA_DIR",          "/var/lib/cloudly"),
    "host":              ("CLOUDLY_HOST",              "127.0.0.1"),
    "port":              ("CLOUDLY_PORT",              "8080"),
    "heartbeat_every_s": ("CLOUDLY_HEARTBEAT_EVERY_S", "60"),
    "body_deadline_s":   ("CLOUDLY_BODY_DEADLINE_S",   "20"),
    "page":              ("CLOUDLY_PAGE",              "on"),
    "insecure_page":     ("CLOUDLY_INSECURE_PAGE",     "off"),
    "log_level":         ("CLOUDLY_LOG_LEVEL",         "INFO"),
    "registry_service":  ("CLOUDLY_REGISTRY_SERVICE",  "registry.example"),
    "registry_issuer":   ("CLOUDLY_REGISTRY_ISSUER",   "cloudly"),
}
# fmt: on

REGISTRY_HOST = r"^(localhost|[a-z0-9-]+(\.[a-z0-9-]+)+|[a-z0-9.-]+:[0-9]{1,5})$"
"""With a dot or a port: `app/web` without one would be a repository of Docker's own registry."""


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    heartbeat_every_s: float = Field(default=60.0, ge=0.05, le=86400)
    body_deadline_s: float = Field(default=20.0, gt=0, le=600)
    """A body that is not whole by then is refused."""
    page: bool = True
    insecure_page: bool = False
    """Serve the page, which has no login yet, on an address that others can reach."""
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    registry_service: str | None = Field(default=None, max_length=255, pattern=REGISTRY_HOST)
    """The registry that Cloudly is the token server of, as image references name its host; None: of none."""
    registry_issuer: str = Field(default="cloudly", pattern="^[A-Za-z0-9._:/-]{1,200}$")


def from_environment(environ: Mapping[str, str], **options: object) -> Settings:
    """Settings from the environment; an option that is not None wins over its variable. Raises BadSettings."""
    given: dict[str, object] = {
        field: environ[variable]
        for field, (variable, _) in VARIABLES.items()
        if environ.get(variable)
    }
    given |= {field: value for field, value in options.items() if value is not None}
    if "data_dir" not in given:
        raise BadSettings(
            "CLOUDLY_DATA_DIR is not set: the directory of Cloudly's database, for example"
            " CLOUDLY_DATA_DIR=/var/lib/cloudly"
        )
    try:
        return Settings.model_validate(given)
    except ValidationError as problem:
        first = problem.errors(include_input=False, include_url=False)[0]
        variable, example = VARIABLES[str(first["loc"][0])]
        raise BadSettings(
            f"{variable} is malformed: {first['msg']}; for example {variable}={example}"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(settings: Settings) -> None:
    """The page has no login yet, so it stays on this machine unless the operator says otherwise. Raises BadSettings."""
    if settings.page and not settings.insecure_page and not is_loopback(settings.host):
        raise BadSettings(
            f"The page has no login yet and would be open to everyone who reaches {settings.host}:"
            " serve without it (--no-page), or say --insecure-page if the network around it is yours alone"
        )
