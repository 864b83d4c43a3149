"""Cloudly's settings; the only reader of the environment."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from cloudly.problems import BadSettings

# fmt: off
VARIABLES = {
    "data_dir":          ("CLOUDLY_DATA_DIR",          "/var/lib/cloudly"),
    "database_url":      ("CLOUDLY_DATABASE_URL",      "postgresql://cloudly:PASSWORD@db.example/cloudly"),
    "host":              ("CLOUDLY_HOST",              "127.0.0.1"),
    "port":              ("CLOUDLY_PORT",              "8080"),
    "heartbeat_every_s": ("CLOUDLY_HEARTBEAT_EVERY_S", "60"),
    "body_deadline_s":   ("CLOUDLY_BODY_DEADLINE_S",   "20"),
    "node_token_days":   ("CLOUDLY_NODE_TOKEN_DAYS",   "90"),
    "page":              ("CLOUDLY_PAGE",              "on"),
    "api":               ("CLOUDLY_API",               "on"),
    "insecure_page":     ("CLOUDLY_INSECURE_PAGE",     "off"),
    "log_level":         ("CLOUDLY_LOG_LEVEL",         "INFO"),
    "log_format":        ("CLOUDLY_LOG_FORMAT",        "json"),
    "metrics":           ("CLOUDLY_METRICS",           "on"),
    "metrics_token_file": ("CLOUDLY_METRICS_TOKEN_FILE", "/etc/cloudly/metrics-token"),
    "drain_s":           ("CLOUDLY_DRAIN_S",           "0"),
    "journal_days":      ("CLOUDLY_JOURNAL_DAYS",      "0"),
    "registry_service":  ("CLOUDLY_REGISTRY_SERVICE",  "registry.example"),
    "registry_issuer":   ("CLOUDLY_REGISTRY_ISSUER",   "cloudly"),
    "public_url":        ("CLOUDLY_PUBLIC_URL",        "https://cloudly.example:8443"),
    "tls":               ("CLOUDLY_TLS",               "self"),
    "tls_cert":          ("CLOUDLY_TLS_CERT",          "/etc/cloudly/tls.crt"),
    "tls_key":           ("CLOUDLY_TLS_KEY",           "/etc/cloudly/tls.key"),
    "root_ca":           ("CLOUDLY_ROOT_CA",           "/etc/cloudly/root-ca.crt"),
    "logs_per_node_mib": ("CLOUDLY_LOGS_PER_NODE_MIB", "1"),
    "logs_total_mib":    ("CLOUDLY_LOGS_TOTAL_MIB",    "1024"),
    "logs_days":         ("CLOUDLY_LOGS_DAYS",         "7"),
    "logs_lines_per_s":  ("CLOUDLY_LOGS_LINES_PER_S",  "100"),
}
# fmt: on

REGISTRY_HOST = r"^(localhost|[a-z0-9-]+(\.[a-z0-9-]+)+|[a-z0-9.-]+:[0-9]{1,5})$"
"""With a dot or a port: `app/web` without one would be a repository of Docker's own registry."""


class TlsMode(StrEnum):
    OFF = "off"
    """Plain HTTP: for a proxy in front that has the certificate, or a desk."""
    FILES = "files"
    """The deployer's certificate and key."""
    SELF = "self"
    """A certificate by a CA that Cloudly makes, for the host of the public URL."""


def _address(text: str) -> str:
    """Scheme, host and port, and nothing else: a Supervisor drops a path. Raises ValueError."""
    try:
        parts = urlsplit(text)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole or parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("it must be http(s)://host or http(s)://host:port")
    if parts.path.strip("/"):
        raise ValueError("it may have no path: a balena Supervisor would drop it")
    return text.rstrip("/")


Address = Annotated[str, Field(max_length=500), AfterValidator(_address)]


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    data_dir: Path
    database_url: SecretStr | None = None
    """Of a PostgreSQL database, which any number of servers share; None: SQLite in the data directory."""
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    heartbeat_every_s: float = Field(default=60.0, ge=0.05, le=86400)
    body_deadline_s: float = Field(default=20.0, gt=0, le=600)
    """A body that is not whole by then is refused."""
    node_token_days: float | None = Field(default=None, ge=0.01, le=36500)
    """Nodes are asked for another node token when theirs is older; None: only when an operator says so."""
    page: bool = True
    api: bool = True
    """Serve the admin API; every route of it needs an API token, so any address may."""
    insecure_page: bool = False
    """Serve the page, which has no login yet, on an address that others can reach."""
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    log_format: str = Field(default="json", pattern="^(json|text)$")
    metrics: bool = True
    metrics_token_file: Path | None = None
    """Who presents what is in it may read /metrics from anywhere; None: this machine only."""
    drain_s: float = Field(default=0.0, ge=0, le=300)
    """From SIGTERM on: so long it is not ready, and still answers."""
    journal_days: float = Field(default=0.0, ge=0, le=36500)
    """Facts of journals that Cloudly has for longer are let go; 0: all are kept."""
    logs_per_node_mib: float = Field(default=1.0, ge=0.1, le=1024)
    """Logs of a device that are kept, compressed: some ten times as much text."""
    logs_total_mib: float = Field(default=1024.0, ge=1, le=1048576)
    logs_days: float = Field(default=7.0, gt=0, le=3650)
    logs_lines_per_s: float = Field(default=100.0, ge=1, le=10000)
    """Of one device, for long; fifty times as many may come at once. What is beyond is counted and not kept."""
    registry_service: str | None = Field(default=None, max_length=255, pattern=REGISTRY_HOST)
    """The registry that Cloudly is the token server of, as image references name its host; None: of none."""
    registry_issuer: str = Field(default="cloudly", pattern="^[A-Za-z0-9._:/-]{1,200}$")
    public_url: Address | None = None
    """How devices reach Cloudly."""
    tls: TlsMode | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    root_ca: Path | None = None
    """What devices must trust beside the public CAs, where it is not the self-made one: a company's own root."""

    @property
    def database(self) -> str | None:
        return None if self.database_url is None else self.database_url.get_secret_value()

    @property
    def tls_mode(self) -> TlsMode:
        """As set; files that are given mean that they are to be served."""
        if self.tls is not None:
            return self.tls
        return TlsMode.FILES if self.tls_cert or self.tls_key else TlsMode.OFF


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


def check_tls(settings: Settings) -> None:
    """What must be set together. Raises BadSettings."""
    mode, url = settings.tls_mode, settings.public_url
    for variable, value, needed in (
        ("CLOUDLY_TLS_CERT", settings.tls_cert, mode is TlsMode.FILES),
        ("CLOUDLY_TLS_KEY", settings.tls_key, mode is TlsMode.FILES),
    ):
        if needed and value is None:
            raise BadSettings(
                f"{variable} is not set: with CLOUDLY_TLS=files both it and its partner are needed,"
                " for example CLOUDLY_TLS_CERT=/etc/cloudly/tls.crt CLOUDLY_TLS_KEY=/etc/cloudly/tls.key"
            )
        if value is not None and not needed:
            raise BadSettings(f"{variable} is set, but CLOUDLY_TLS={mode} does not use it")
    if mode is TlsMode.SELF and url is None:
        raise BadSettings(
            "CLOUDLY_PUBLIC_URL is not set: the certificate is made for its host, for example"
            " CLOUDLY_PUBLIC_URL=https://cloudly.example:8443"
        )
    if mode is not TlsMode.OFF and url is not None and url.startswith("http://"):
        raise BadSettings(
            f"CLOUDLY_PUBLIC_URL is http://, but with CLOUDLY_TLS={mode} Cloudly speaks TLS only:"
            " say https://"
        )
