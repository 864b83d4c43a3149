"""Whom the agent trusts when Cloudly speaks TLS, and why it did not: a further CA, and errors with what to do.

Rules:
- A further CA is added to the public ones and replaces none: a Cloudly may move to a public certificate later.
- What is said of a certificate names hosts and dates at most.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx

MARKER = "-----BEGIN CERTIFICATE-----"
MAX_CHARS = 65_536


def read_ca(value: str) -> str:
    """PEM from PEM, from base64 of PEM (as `balenaRootCA` has it), or from a file. Raises ValueError, OSError."""
    if value.startswith("/"):
        value = Path(value).read_text(encoding="ascii")
    if MARKER not in value:
        try:
            value = base64.b64decode("".join(value.split()), validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError("neither PEM nor base64 of PEM") from None
    if MARKER not in value or len(value) > MAX_CHARS:
        raise ValueError("it holds no PEM certificate")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=value)
    except ssl.SSLError:
        raise ValueError("it holds a damaged certificate") from None
    return value


def verification(url: str, ca: str | None) -> ssl.SSLContext | bool:
    """For httpx. Certificates are loaded only for https: they cost memory and 100 ms of CPU."""
    if not url.startswith("https://"):
        return False
    if ca is None:
        return True
    context = httpx.create_ssl_context(trust_env=False)
    context.load_verify_locations(cadata=ca)
    return context


@dataclass(frozen=True, slots=True)
class Distrust:
    """Why a certificate was not accepted, and what to do."""

    seen: str
    todo: str


# By OpenSSL's verify code (x509_vfy.h).
# fmt: off
UNKNOWN_CA = Distrust(
    "its certificate is by a CA that is not trusted here",
    "give the agent Cloudly's CA (BASEOS_CLOUDLY_CA; `cloudly ca show --base64` prints it)",
)
OTHER_HOST = Distrust(
    "its certificate is for another host",
    "BASEOS_CLOUDLY_URL must name the host of Cloudly's CLOUDLY_PUBLIC_URL",
)
WHY = {
    9:  Distrust("its certificate is not valid yet by this device's clock",
                 "check the host's clock; Cloudly's own certificates are valid since 1970"),
    10: Distrust("its certificate has ended by this device's clock",
                 "check the host's clock; if it is right, renew the certificate at Cloudly"),
    18: UNKNOWN_CA, 19: UNKNOWN_CA, 20: UNKNOWN_CA, 21: UNKNOWN_CA,
    7:  Distrust("its certificate is by a CA of the same name as the trusted one, but with another key",
                 "Cloudly's CA was replaced: give the agent the new one (BASEOS_CLOUDLY_CA)"),
    47: Distrust("its CA may not speak for this host",
                 "BASEOS_CLOUDLY_URL must name a host that the CA was made for (`cloudly ca show`)"),
    48: Distrust("its CA may not speak for this host",
                 "BASEOS_CLOUDLY_URL must name a host that the CA was made for (`cloudly ca show`)"),
    62: OTHER_HOST, 64: OTHER_HOST,
}
# fmt: on
SOMETHING = Distrust("its certificate was not accepted", "look at the certificate of Cloudly")
NO_TLS = Distrust(
    "it does not speak TLS there", "is BASEOS_CLOUDLY_URL right: https, and the port of Cloudly?"
)


def why_distrusted(error: BaseException | None) -> Distrust | None:
    """What was wrong with TLS; None: it was something else. Looks at what the error came from, too."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ssl.SSLCertVerificationError):
            return WHY.get(error.verify_code, SOMETHING)
        if isinstance(error, ssl.SSLError) and error.reason in {
            "WRONG_VERSION_NUMBER",
            "HTTP_REQUEST",
        }:
            return NO_TLS
        error = error.__cause__ or error.__context__
    return None
