"""Whether a config.json is right for this Cloudly: each finding says what was seen and what to do. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509

from cloudly.image.config_json import FOREIGN, POLL_BOUNDS_MS, REGISTRATION, Config
from cloudly.image.masking import certificate_in, fingerprint

AGAIN = "`cloudly image configure` writes it"


@dataclass(frozen=True, slots=True)
class Finding:
    verdict: str
    """ok, note or bad."""
    what: str
    seen: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Expected:
    """What this Cloudly is. None: not known here."""

    url: str
    root_ca: x509.Certificate | None
    token_trouble: Callable[[str], str] | None = None
    """Why that join token admits nobody; empty: it does."""
    device_type: str | None = None
    """What the image says of itself."""
    now: datetime | None = None


def examine(config: Config, expected: Expected) -> list[Finding]:
    """In the order in which a device meets them."""
    return [
        _endpoint(config, expected),
        _logs(config, expected),
        *_root_ca(config, expected),
        _token(config, expected),
        _agent(config, expected),
        _application(config),
        _device_type(config, expected),
        _poll(config),
        *_left_over(config),
    ]


def _endpoint(config: Config, expected: Expected) -> Finding:
    found = config.get("apiEndpoint")
    if found == expected.url:
        return Finding("ok", "apiEndpoint", str(found))
    if not found:
        return Finding("bad", "apiEndpoint", "missing: the device would be nobody's", AGAIN)
    return Finding("bad", "apiEndpoint", f"{_host(found)}, not {expected.url}", AGAIN)


def _logs(config: Config, expected: Expected) -> Finding:
    found = config.get("logsEndpoint") or config.get("apiEndpoint")
    if not isinstance(found, str) or not found.startswith("https://"):
        return Finding(
            "bad", "logsEndpoint", "not https: the Supervisor would crash at each boot", AGAIN
        )
    if found != expected.url:
        return Finding("note", "logsEndpoint", f"{_host(found)}: Cloudly gets no logs")
    return Finding("ok", "logsEndpoint", found)


def _root_ca(config: Config, expected: Expected) -> Iterator[Finding]:
    raw, wanted = config.get("balenaRootCA"), expected.root_ca
    found = certificate_in(raw)
    if raw is not None and found is None:
        yield Finding("bad", "balenaRootCA", "no certificate: the host would trust nobody", AGAIN)
    elif wanted is None and found is None:
        yield Finding("ok", "balenaRootCA", "none, and none is needed")
    elif wanted is None:
        yield Finding("note", "balenaRootCA", "a CA that is not Cloudly's; it stays trusted")
    elif found is None:
        yield Finding("bad", "balenaRootCA", "missing: the device would not trust Cloudly", AGAIN)
    elif found.public_key() != wanted.public_key():
        yield Finding("bad", "balenaRootCA", "another CA than Cloudly's present one", AGAIN)
    elif expected.now is not None and found.not_valid_after_utc <= expected.now:
        yield Finding("bad", "balenaRootCA", f"ended {found.not_valid_after_utc:%Y-%m-%d}", AGAIN)
    else:
        yield Finding(
            "ok", "balenaRootCA", f"Cloudly's, until {found.not_valid_after_utc:%Y-%m-%d}"
        )


def _token(config: Config, expected: Expected) -> Finding:
    found = config.get("apiKey")
    if not isinstance(found, str) or not found:
        if config.get("deviceApiKey"):
            return Finding("note", "apiKey", "none: the device has registered, it needs none")
        return Finding("bad", "apiKey", "missing: the device could not register", AGAIN)
    which = f"fingerprint {fingerprint(found)}"
    if expected.token_trouble is None:
        return Finding("note", "apiKey", f"{which}; whether it is usable, only Cloudly knows")
    if why := expected.token_trouble(found):
        return Finding(
            "bad", "apiKey", f"{which}: {why}", "configure again with a fresh join token"
        )
    return Finding("ok", "apiKey", f"{which}: a usable join token")


def _agent(config: Config, expected: Expected) -> Finding:
    url, token = config.get("BASEOS_CLOUDLY_URL"), config.get("BASEOS_JOIN_TOKEN")
    if url != expected.url:
        seen = f"{_host(url)}, not {expected.url}" if url else "missing"
        return Finding("bad", "BASEOS_CLOUDLY_URL", seen, AGAIN)
    if config.get("apiKey") and token != config["apiKey"]:
        seen = "not the Supervisor's: two uses of a token, or two nodes" if token else "missing"
        return Finding("bad", "BASEOS_JOIN_TOKEN", seen, AGAIN)
    return Finding("ok", "BASEOS_JOIN_TOKEN", "the same as apiKey: one node, one use")


def _application(config: Config) -> Finding:
    found = config.get("applicationId")
    if isinstance(found, bool) or not isinstance(found, int):
        return Finding(
            "bad", "applicationId", "no number: the Supervisor would not register", AGAIN
        )
    return Finding("ok", "applicationId", str(found))


def _device_type(config: Config, expected: Expected) -> Finding:
    found, image = config.get("deviceType"), expected.device_type
    if not isinstance(found, str) or not found:
        return Finding("bad", "deviceType", "missing", "--device-type, as its image is called")
    if image is not None and image != found:
        return Finding("bad", "deviceType", f"{found}, but the image is for {image}", AGAIN)
    return Finding("ok", "deviceType", found + (", as the image says" if image else ""))


def _poll(config: Config) -> Finding:
    found = config.get("appUpdatePollInterval", 900_000)
    low, high = POLL_BOUNDS_MS
    if isinstance(found, bool) or not isinstance(found, int) or not low <= found <= high:
        seen = f"{found!r} is not between {low} and {high} ms"
        return Finding("bad", "appUpdatePollInterval", seen[:100], AGAIN)
    return Finding("ok", "appUpdatePollInterval", f"{found // 1000} s")


def _left_over(config: Config) -> Iterator[Finding]:
    foreign = [key for key in FOREIGN if config.get(key) and key != "registryEndpoint"]
    if foreign:
        seen = f"{', '.join(foreign)}: another backend's"
        yield Finding("bad", "left over", seen, f"{AGAIN} without them")
    registered = [key for key in REGISTRATION if config.get(key)]
    if registered:
        seen = f"{', '.join(registered)}: it has been started, and is one device's"
        yield Finding("note", "registered", seen, "flash no second device with it")
    elif config.get("uuid"):
        yield Finding("note", "uuid", "it has one already", "flash one device with it, no second")
    if config.get("developmentMode"):
        yield Finding(
            "note", "developmentMode", "on: whoever reaches the device gets in without a password"
        )


def _host(url: Any) -> str:
    """The host alone: an address may hold a password."""
    try:
        return urlsplit(str(url)).hostname or "no address"
    except ValueError:
        return "no address"
