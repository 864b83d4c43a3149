"""Who speaks as a node, in the database: whose turn it is, who was superseded, and who was fenced how often."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudly.epochs import UNANNOUNCED
from cloudly.reports import load, text
from cloudly.store import audit, epochs, outbox
from cloudly.store.audit import By
from cloudly.store.sql import Connection
from cloudly.voices import FORGOTTEN_MS, Known, Standing, Superseded, Voice, lives, standing

KEPT_SUPERSEDED = 100
"""Per node, of the present epoch: one that is forgotten is taken for a new one, and fences the other."""
ALARM_AFTER = 2


@dataclass(frozen=True, slots=True)
class Last:
    """The node's last heartbeat that was taken."""

    at_ms: int = 0
    reported: str | None = None


def hear(
    db: Connection, node: int, voice: Voice, *, now_ms: int, last: Callable[[], Last]
) -> tuple[Standing, int]:
    """What becomes of a request, and the number of its epoch; an epoch that was never heard of begins.

    `last` is asked only where somebody else than before speaks.
    """
    number = epochs.number_of(db, node, voice.epoch)
    if number is None:
        number = epochs.begin(db, node, voice.epoch, now_ms=now_ms, why=UNANNOUNCED)
    turn = db.execute("SELECT epoch_n, writer FROM voice WHERE node=?", (node,)).fetchone()
    if (number, voice.writer) == (turn[0], turn[1]):
        return Standing.PRESENT, number
    before, latest = _before(db, node, voice.writer), last()
    said = load(latest.reported)
    known = Known(
        newest=number == turn[0],
        writer=turn[1],
        superseded=before is not None,
        heard=_heard(db, node, number),
        boot_id=text(said.get("boot_id")),
        uptime_ms=uptime_ms(said),
    )
    found = standing(voice, known)
    if found is Standing.SUCCESSOR:
        _succeed(db, node, voice, turn[1], now_ms=now_ms, last=latest)
    elif found is Standing.FENCED:
        _count(db, node, voice, alive=lives(voice, before), now_ms=now_ms, last=latest)
    return found, number


def _before(db: Connection, node: int, writer: str | None) -> Superseded | None:
    row = db.execute(
        "SELECT at_ms, seen_at_ms, boot_id, uptime_ms FROM superseded WHERE node=? AND writer=?",
        (node, writer),
    ).fetchone()
    return None if row is None else Superseded(*row)


def _heard(db: Connection, node: int, number: int) -> dict[str, int]:
    return dict(
        db.execute(
            "SELECT lane, head_seq FROM lane WHERE node=? AND epoch_n=?", (node, number)
        ).fetchall()
    )


def _succeed(  # noqa: PLR0913 - who, whom, when, and what was last said
    db: Connection, node: int, voice: Voice, before: str | None, *, now_ms: int, last: Last
) -> None:
    db.execute("UPDATE voice SET writer=?, since_ms=? WHERE node=?", (voice.writer, now_ms, node))
    if before is None:
        return
    said = load(last.reported)
    db.execute(
        "INSERT INTO superseded(node, writer, at_ms, seen_at_ms, boot_id, uptime_ms) VALUES(?,?,?,?,?,?)"
        " ON CONFLICT(node, writer) DO UPDATE SET at_ms=excluded.at_ms, seen_at_ms=excluded.seen_at_ms,"
        " boot_id=excluded.boot_id, uptime_ms=excluded.uptime_ms",
        (node, before, now_ms, last.at_ms, text(said.get("boot_id")), uptime_ms(said)),
    )
    db.execute(
        "DELETE FROM superseded WHERE node=?1 AND at_ms < (SELECT at_ms FROM superseded WHERE node=?1"
        " ORDER BY at_ms DESC LIMIT 1 OFFSET ?2)",
        (node, KEPT_SUPERSEDED - 1),
    )


def _count(  # noqa: PLR0913 - who, whether it lives, when, and what was last said
    db: Connection, node: int, voice: Voice, *, alive: bool, now_ms: int, last: Last
) -> None:
    said = load(last.reported)
    told = {
        "fenced": _device(voice.boot_id, voice.addresses, voice.writer, voice.epoch),
        "present": _device(text(said.get("boot_id")), said.get("addresses"), None, None),
    }
    db.execute(
        "DELETE FROM fence WHERE node=? AND alarm=0 AND last_at_ms<?", (node, now_ms - FORGOTTEN_MS)
    )
    before = db.execute("SELECT alarm FROM fence WHERE node=?", (node,)).fetchone()
    now = db.execute(
        "INSERT INTO fence(node, count, first_at_ms, last_at_ms, alarm, told) VALUES(?1,1,?2,?2,?3,?4)"
        " ON CONFLICT(node) DO UPDATE SET count=fence.count+1, last_at_ms=?2,"
        " alarm=CASE WHEN fence.alarm=1 OR ?3=1 OR fence.count+1>=?5 THEN 1 ELSE 0 END,"
        " told=CASE WHEN ?6=1 THEN ?4 ELSE fence.told END RETURNING count, alarm",
        (node, now_ms, alive, json.dumps(told), ALARM_AFTER, voice.boot_id is not None),
    ).fetchone()
    if now["alarm"] and not (before and before["alarm"]):
        fenced = {"why": "two devices speak as this node", "fenced": now["count"]}
        outbox.tell_of_node(db, "node.fence_alarm", node, fenced, now_ms)


def _device(
    boot_id: str | None, addresses: object, writer: str | None, epoch: str | None
) -> dict[str, Any]:
    listed = addresses if isinstance(addresses, list | tuple) else ()
    return {
        "boot_id": boot_id,
        "addresses": [str(one)[:100] for one in listed][:32],
        "writer": writer,
        "epoch": epoch,
    }


def uptime_ms(reported: Mapping[str, Any]) -> int | None:
    """How long its host had been up; None where it says nothing usable."""
    uptime_s = reported.get("uptime_s")
    if isinstance(uptime_s, bool) or not isinstance(uptime_s, int | float):
        return None
    return round(uptime_s * 1000) if 0 <= uptime_s < 1e12 else None


def settle(db: Connection, node: int) -> None:
    """Somebody enrolled anew: who holds that token is the node, whoever spoke before."""
    db.execute("DELETE FROM fence WHERE node=?", (node,))
    db.execute("DELETE FROM superseded WHERE node=?", (node,))
    db.execute("UPDATE voice SET writer=NULL WHERE node=?", (node,))


def acknowledge(db: Connection, node: int, *, by: By | None = None) -> bool:
    """The operator has seen the fences so far; the next two raise the alarm again. Whether there were any."""
    row = db.execute("DELETE FROM fence WHERE node=? RETURNING count", (node,)).fetchone()
    if row is not None:
        audit.note_of_node(db, by, "node.fences_acknowledged", node, fenced=row[0])
    return row is not None
