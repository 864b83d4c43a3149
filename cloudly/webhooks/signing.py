"""What a receiver gets, and how it knows that it is from us. Pure.

Source: Standard Webhooks 1.0.0: `webhook-id`, `webhook-timestamp` and `webhook-signature`, which is `v1,` and the
base64 of HMAC-SHA256 over `id.timestamp.body`, by a secret that is written `whsec_` and base64.

Rules:
- An event has one id however often it is sent: who gets it twice can tell. After a restore from a backup numbers are
  given again, so the id is also of what happened.
- The timestamp is the attempt's: a receiver refuses old ones.
- Several signatures stand one after the other, with a space between: while a secret is replaced, both sign.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from interfaces.world import World

PREFIX = "whsec_"
SECRET_BYTES = 32
SHORTEST, LONGEST = 24, 64
"""Bytes of a secret, by the specification."""


@dataclass(frozen=True, slots=True)
class Event:
    """A row of the outbox."""

    number: int
    at_ms: int
    kind: str
    data: str
    """JSON."""

    @property
    def id(self) -> str:
        content = f"{self.number}.{self.at_ms}.{self.kind}.{self.data}"
        return f"msg_{self.number}_{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    @property
    def body(self) -> bytes:
        at = datetime.fromtimestamp(self.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
        return (
            f'{{"type":{json.dumps(self.kind)},"timestamp":"{at.replace("+00:00", "Z")}",'
            f'"data":{self.data}}}'
        ).encode()


def new_secret(world: World) -> str:
    return PREFIX + base64.b64encode(world.random_bytes(SECRET_BYTES)).decode()


def key_of(secret: str) -> bytes:
    """The bytes of a secret. Raises ValueError, which does not say it."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"it is not {PREFIX} and base64") from None
    if not secret.startswith(PREFIX) or not SHORTEST <= len(key) <= LONGEST:
        raise ValueError(f"it is not {PREFIX} and base64 of {SHORTEST} to {LONGEST} bytes")
    return key


def signature(secret: str, event_id: str, at_s: int, body: bytes) -> str:
    """Of one attempt."""
    signed = f"{event_id}.{at_s}.".encode() + body
    mac = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(mac).decode()


def headers(secrets: Sequence[str], event: Event, at_s: int) -> dict[str, str]:
    """Of one attempt to send it; with a signature by each secret, of which a receiver knows one."""
    signed = (signature(secret, event.id, at_s, event.body) for secret in secrets)
    return {
        "content-type": "application/json",
        "user-agent": "cloudly-webhooks/1",
        "webhook-id": event.id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(signed),
    }
