"""A config.json for people's eyes: what it says, without what lets somebody in.

Rules:
- A value is hidden by its key's name, wherever it lies, so that keys of others (Wi-Fi, Tailscale) are hidden too.
- Of our own tokens the fingerprint is shown, the first 12 hex digits of the SHA-256, as the agent journals it: they
  have 256 bits. Of a Wi-Fi password nothing is, not even its length: it could be guessed from either.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from cryptography import x509

from cloudly.tls.authority import fingerprint_of

SECRET = re.compile(r"key|token|secret|passw|psk|credential|auth", re.IGNORECASE)
PUBLIC = frozenset({"sshKeys", "authorized_keys"})
OURS = re.compile(r"b[a-z]t_[A-Za-z0-9_-]{20,}")
HIDDEN = "(hidden)"
CA = "balenaRootCA"


def masked(config: Any) -> Any:
    """The same shape, with its secrets replaced."""
    return _masked(config, hidden=False)


def _masked(value: Any, *, hidden: bool) -> Any:
    if isinstance(value, dict):
        return {key: _by_name(key, one, hidden=hidden) for key, one in value.items()}
    if isinstance(value, list):
        return [_masked(one, hidden=hidden) for one in value]
    if hidden and value not in (None, "", True, False):
        return hidden_value(value)
    return HIDDEN if isinstance(value, str) and OURS.search(value) else value


def _by_name(key: str, value: Any, *, hidden: bool) -> Any:
    if key in PUBLIC:
        return value
    if key == CA and isinstance(value, str):
        return certificate_in_words(value)
    return _masked(value, hidden=hidden or SECRET.search(key) is not None)


def hidden_value(value: Any) -> str:
    if isinstance(value, str) and OURS.fullmatch(value):
        return f"(hidden, fingerprint {fingerprint(value)})"
    return HIDDEN


def fingerprint(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:12]


def certificate_in(value: object) -> x509.Certificate | None:
    """The certificate that `balenaRootCA` holds; None: it holds none."""
    try:
        return x509.load_pem_x509_certificate(base64.b64decode(str(value), validate=True))
    except ValueError:
        return None


def certificate_in_words(value: str) -> str:
    found = certificate_in(value)
    if found is None:
        return "(no certificate)"
    until = f"{found.not_valid_after_utc:%Y-%m-%d}"
    return f"(certificate until {until}, SHA-256 {fingerprint_of(found)[:23]}...)"
