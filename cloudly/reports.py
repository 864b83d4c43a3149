"""What a node says about itself, read for people: shown, never trusted, tolerant of any JSON. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interfaces.why import printable, when

INT64 = 2**63
HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""How one half of a character is written; two of them may be a whole one."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Why one thing on a node is not finished, as the node says it (`interfaces.why.Answer`)."""

    stream: str
    state: str
    waits_for: str
    owner: str
    since_ms: int
    until_ms: int | None
    then: str
    resume: str
    reason: str
    tried: tuple[str, ...]


def waiting_of(reported: Mapping[str, Any]) -> list[Waits]:
    """What the node says it waits for, machine by machine."""
    listed = reported.get("waiting")
    return [_waits(mapping(one)) for one in (listed if isinstance(listed, list) else [])]


def _waits(one: Mapping[str, Any]) -> Waits:
    tried = one.get("tried")
    words = {
        name: text(one.get(name)) or ""
        for name in ("stream", "state", "waits_for", "owner", "then", "resume", "reason")
    }
    return Waits(
        **words,
        since_ms=whole(one.get("since_ms")) or 0,
        until_ms=whole(one.get("until_ms")),
        tried=tuple(str(words) for words in tried) if isinstance(tried, list) else (),
    )


def waits(reported: Mapping[str, Any]) -> tuple[str, ...]:
    """The same, a sentence each."""
    return tuple(
        f"{one.waits_for} ({one.reason}; {one.owner})"
        if one.reason
        else f"{one.waits_for} ({one.owner})"
        for one in waiting_of(reported)
    )


def locks(reported: Mapping[str, Any]) -> tuple[str, ...]:
    """Who on the device holds updates up, why, and until when: a sentence for each update lock."""
    listed = reported.get("locks")
    return tuple(_lock(mapping(one)) for one in (listed if isinstance(listed, list) else []))


def _lock(one: Mapping[str, Any]) -> str:
    owner, reason = text(one.get("owner")) or "somebody", text(one.get("reason")) or "no reason"
    since_ms, until_ms = whole(one.get("since_ms")), whole(one.get("until_ms"))
    since = f" since {when(since_ms)}" if since_ms is not None else ""
    until = f" until {when(until_ms)}" if until_ms is not None else ""
    return printable(f"{owner}{since}{until}: {reason}")


def facts(row: Mapping[str, Any], reported: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a person looks for in a report, as far as it is there."""
    supervisor = mapping(reported.get("supervisor"))
    available = "available" if supervisor.get("available") is True else "not available"
    addresses = reported.get("addresses")
    named = (
        ("Agent", row["agent_version"]),
        ("Device type", row["device_type"]),
        ("Host OS", text(reported.get("host_os_version"))),
        (
            "Supervisor",
            " ".join(filter(None, (text(supervisor.get("version")), available)))
            if supervisor
            else None,
        ),
        (
            "Addresses",
            " ".join(str(one) for one in addresses) if isinstance(addresses, list) else None,
        ),
        ("Up for", span(reported.get("uptime_s"))),
        ("Disk free", share(reported.get("disk"))),
        ("Memory free", share(reported.get("memory"))),
        ("Temperature", degrees(reported.get("temperature_c"))),
        ("Update locks", "; ".join(locks(reported))),
        ("Clock", text(reported.get("clock"))),
        ("Boot", text(reported.get("boot_id"))),
    )
    return [(name, value) for name, value in named if value]


def span(seconds: object) -> str | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e10:
        return None
    minutes = int(seconds) // 60
    return f"{minutes // 1440} d {minutes // 60 % 24} h {minutes % 60} min"


def share(space: object) -> str | None:
    total, free = whole(mapping(space).get("total_bytes")), whole(mapping(space).get("free_bytes"))
    if total is None or free is None or not 0 < total < INT64 or not 0 <= free <= total:
        return None
    return f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB"


def degrees(celsius: object) -> str | None:
    return f"{celsius:.0f} °C" if isinstance(celsius, int | float) and abs(celsius) < 1000 else None


def load(document: str | None) -> dict[str, Any]:
    """A JSON object that a node sent; empty where it is none.

    JSON can name half a character (one surrogate), which no database and no page can hold: it becomes a question mark.
    """
    try:
        loaded = json.loads(document) if document else {}
        if document and HALF.search(document):
            whole_text = json.dumps(loaded, ensure_ascii=False).encode("utf-8", "replace")
            loaded = json.loads(whole_text)
        return mapping(loaded)
    except (ValueError, RecursionError):
        return {}


def mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
