"""The host's config.json as Cloudly wants it. Pure: what is wanted of it, what it becomes, what it says.

Rules:
- What Cloudly does not know stays: Wi-Fi, SSH keys, what the operator set by hand.
- What another backend left (its VPN, its deltas, its analytics) goes: a device would go on talking to it.
- A file that belongs to another backend, or to a device that is registered, is not taken over without being told to.
- No deltaEndpoint, no vpnEndpoint, no mixpanelToken: Cloudly has none of these.

Source: what Supervisor 19 and meta-balena read of config.json; docs/adr/0014.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cloudly.problems import BadOrder

Config = dict[str, Any]

MAX_BYTES = 1_048_576
NAME = "config.json"
REGISTRATION = ("deviceApiKey", "deviceApiKeys", "deviceId", "registered_at")
"""What a device has when it is some backend's."""
FOREIGN = (
    "deltaEndpoint",
    "mixpanelToken",
    "pubnubPublishKey",
    "pubnubSubscribeKey",
    "registryEndpoint",
    "userId",
    "username",
    "vpnEndpoint",
    "vpnPort",
)
"""What only another backend needs; registryEndpoint is written again where Cloudly has one."""
LISTEN_PORT = 48484
POLL_MS = 900_000
"""The Supervisor's own default; baserunner makes it look at once when there is an update."""
POLL_BOUNDS_MS = (60_000, 86_400_000)
"""A minute is the quickest that was recorded; after twice the interval without a poll the host thinks it is ill."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be in it. None: not Cloudly's business, what is there stays."""

    url: str
    join_token: str = field(repr=False)
    application_id: int = 1
    logs_url: str = ""
    root_ca: bytes | None = None
    """PEM of what the host must trust beside the public CAs."""
    device_type: str | None = None
    registry: str | None = None
    listen_port: int = LISTEN_PORT
    poll_ms: int = POLL_MS
    device_name: str | None = None
    hostname: str | None = None
    persistent_logging: bool | None = None
    development_mode: bool | None = None

    def values(self) -> Config:
        """Key and value, as they are to be in the file."""
        found: Config = {
            "apiEndpoint": self.url,
            "logsEndpoint": self.logs_url or self.url,
            "apiKey": self.join_token,
            "applicationId": self.application_id,
            "appUpdatePollInterval": self.poll_ms,
            "listenPort": self.listen_port,
            "BASEOS_CLOUDLY_URL": self.url,
            "BASEOS_JOIN_TOKEN": self.join_token,
            "balenaRootCA": None
            if self.root_ca is None
            else base64.b64encode(self.root_ca).decode(),
            "deviceType": self.device_type,
            "registryEndpoint": self.registry,
            "initialDeviceName": self.device_name,
            "hostname": self.hostname,
            "persistentLogging": self.persistent_logging,
            "developmentMode": self.development_mode,
        }
        return {key: value for key, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Plan:
    """What the file becomes, and what changes by that."""

    after: Config
    written: Config
    removed: tuple[str, ...]


def parse(raw: bytes, where: str) -> Config:
    """The object in it. Raises BadOrder, which names the place of a fault and not what stands there."""
    if len(raw) > MAX_BYTES:
        raise BadOrder(f"{where} has {len(raw)} bytes: that is no config.json")
    try:
        found = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_once_each)
    except UnicodeDecodeError as problem:
        raise BadOrder(f"{where} is no text: byte {problem.start} is not UTF-8") from None
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}"
        seen = "it is empty" if not raw.strip() else f"{problem.msg} at {place}"
        raise BadOrder(f"{where} is no JSON: {seen}; nothing was changed") from None
    except _TwiceError as problem:
        raise BadOrder(f"{where} has the key {problem} twice: which one counts?") from None
    except RecursionError:
        raise BadOrder(f"{where} is nested too deeply to be a config.json") from None
    if not isinstance(found, dict):
        raise BadOrder(f"{where} holds no JSON object; nothing was changed")
    return found


def rendered(config: Config) -> bytes:
    """As it is written. Bytes that would not come back as they are would be an error of ours."""
    return (json.dumps(config, indent=2, ensure_ascii=True, allow_nan=False) + "\n").encode()


def plan(before: Config, wanted: Wanted, *, replace: bool = False, keep_uuid: bool = False) -> Plan:
    """What it becomes. Raises BadOrder when it is another's and was not to be replaced."""
    whose = belongs_to_another(before, wanted.url)
    if whose and not replace:
        raise BadOrder(
            f"{whose}. Nothing was changed; --replace makes it a new device of this Cloudly"
            " (its registration and its uuid go; --keep-uuid keeps the uuid)"
        )
    values = wanted.values()
    gone = set(FOREIGN)
    if whose:
        gone |= {*REGISTRATION} | (set() if keep_uuid else {"uuid"})
    removed = tuple(sorted(key for key in gone if key in before and key not in values))
    after = {key: value for key, value in before.items() if key not in removed} | values
    written = {key: value for key, value in values.items() if before.get(key) != value}
    return Plan(after, written, removed)


def belongs_to_another(config: Mapping[str, Any], url: str) -> str:
    """Why it is not ours to change, in words; empty: it is."""
    endpoint = config.get("apiEndpoint")
    if endpoint and endpoint != url:
        host = urlsplit(endpoint).hostname if isinstance(endpoint, str) else None
        return f"it belongs to another backend, at {host or 'an address that is none'}"
    has = [key for key in REGISTRATION if config.get(key)]
    return f"it is of a device that is registered ({', '.join(has)})" if has else ""


class _TwiceError(Exception):
    """A key that stands there twice."""


def _once_each(pairs: list[tuple[str, Any]]) -> Config:
    found: Config = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(key[:100])
        found[key] = value
    return found
