"""A Supervisor's state reports: differences, merged into what it has reported so far. Pure.

Rules (recorded in supervisor/backend):
- A report holds the parts that differ from the last one that got a 2xx; a part is replaced as a whole, `apps` too.
- The order of requests is the order of truth: a difference is to the state that the one before left.
- The key of its own API (`api_secret`) is a secret: its fingerprint is kept and never the key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from cloudly.batch import malformed
from cloudly.problems import Refused
from cloudly.tokens import fingerprint

BODY = TypeAdapter(dict[str, dict[str, Any]], config=ConfigDict(hide_input_in_errors=True))
SECRETS = frozenset({"api_secret", "api_key"})
VOLATILE = frozenset(
    {
        "cpu_id",
        "cpu_temp",
        "cpu_usage",
        "is_undervolted",
        "memory_total",
        "memory_usage",
        "storage_block_device",
        "storage_total",
        "storage_usage",
    }
)
"""Measurements: kept in memory for a while, not worth a write of their own."""
MAX_KEPT = 256 * 1024
"""Bytes of all that one Supervisor has reported; a device with a hundred services reports 30 KiB."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What one report changes."""

    parts: dict[str, Any]
    api_secret_hash: bytes | None

    @property
    def is_measurement(self) -> bool:
        """Nothing in it but measurements."""
        return self.api_secret_hash is None and self.parts.keys() <= VOLATILE


def read_report(body: bytes, uuid: str) -> Difference:
    """The body of `PATCH /device/v3/state` from the device with that uuid. Raises Refused."""
    try:
        report = BODY.validate_json(body)
    except ValidationError as problem:
        raise malformed(problem) from None
    if list(report) != [uuid]:
        raise Refused("node-mismatch", status=401)
    told = report[uuid]
    secret = told.get("api_secret")
    return Difference(
        {key: value for key, value in told.items() if key not in SECRETS},
        fingerprint(secret) if isinstance(secret, str) and secret else None,
    )


def merge(known: str | None, difference: Difference) -> str:
    """All that the Supervisor has reported, as JSON. Raises Refused (too-large)."""
    merged = (json.loads(known) if known else {}) | difference.parts
    text = json.dumps(merged, separators=(",", ":"))
    if len(text) > MAX_KEPT:
        raise Refused("too-large", f"At most {MAX_KEPT} bytes of reports are kept.")
    return text
