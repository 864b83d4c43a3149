"""Epochs in the database: one begins, the one before it is closed, and what is lost of that one is on record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from cloudly import epochs
from cloudly.gaps import Missing
from cloudly.store import heads
from cloudly.store.sql import Connection, Row
from interfaces.journal import Lane

MOST_NOTED = 100
"""Ranges beside another writer's in one epoch: enough to see what is the matter."""


def number_of(db: Connection, node: int, epoch: str) -> int | None:
    """The number of this epoch among the node's; None: not known."""
    row = db.execute("SELECT n FROM epoch WHERE node=? AND epoch=?", (node, epoch)).fetchone()
    return None if row is None else int(row[0])


def newest(db: Connection, node: int) -> int:
    """The number of the node's present epoch; 0: it has none."""
    return int(db.execute("SELECT max(n) FROM epoch WHERE node=?", (node,)).fetchone()[0] or 0)


def begin(db: Connection, node: int, epoch: str, *, now_ms: int, why: str) -> int:
    """A new epoch, which is the node's newest from now on; returns its number."""
    before = newest(db, node)
    number = before + 1
    if before:
        _close(db, node, before, now_ms)
    db.execute(
        "INSERT INTO epoch(node, n, epoch, began_at_ms, why) VALUES(?,?,?,?,?)",
        (node, number, epoch, now_ms, why if before else epochs.FIRST),
    )
    db.execute(
        "INSERT INTO voice(node, epoch_n, epoch, writer, since_ms) VALUES(?,?,?,NULL,?) ON CONFLICT(node) DO UPDATE SET"
        " epoch_n=excluded.epoch_n, epoch=excluded.epoch, writer=NULL, since_ms=excluded.since_ms",
        (node, number, epoch, now_ms),
    )
    # Whoever speaks of an older epoch is fenced for that.
    db.execute("DELETE FROM superseded WHERE node=?", (node,))
    return number


def _close(db: Connection, node: int, number: int, now_ms: int) -> None:
    """Until its successor says otherwise, what Cloudly heard of and never got is lost."""
    db.execute("UPDATE epoch SET closed_at_ms=? WHERE node=? AND n=?", (now_ms, node, number))
    for lane in _lanes(db, node, number):
        lost = epochs.left_behind(lane["ack_seq"], lane["head_seq"])
        record(db, (node, number, lane["lane"]), lost, now_ms=now_ms)


def began(db: Connection, node: int, number: int, note: epochs.Began, *, now_ms: int) -> None:
    """What the first fact of an epoch says of it, and of the one before it. Later words erase nothing."""
    first = db.execute(
        "UPDATE epoch SET why=?, predecessor=?, problem=?, kept_in=?, carried_core=?, carried_log=?"
        " WHERE node=? AND n=? AND carried_core IS NULL",
        (
            note.why,
            note.predecessor,
            note.problem,
            note.kept_in,
            note.carried[Lane.CORE],
            note.carried[Lane.LOG],
            node,
            number,
        ),
    )
    if not first.rowcount:
        return
    for epoch, lanes in ((note.known_epoch, note.known), *note.known_before):
        if epoch != note.predecessor:
            _known_elsewhere(db, (node, number), epoch, lanes, now_ms)
    before = number_of(db, node, note.predecessor)
    if before is None or before >= number:
        return
    known = {lane["lane"]: lane for lane in _lanes(db, node, before)}
    branch: list[tuple[str, Missing]] = []
    for name in Lane:
        lane = known.get(name.value)
        ack, heard = (lane["ack_seq"], lane["head_seq"]) if lane is not None else (0, 0)
        if note.known_epoch == note.predecessor:
            heard = max(heard, note.known[name.value])
        lost = epochs.lost_of(note.lanes[name.value], note, ack=ack, heard=heard)
        db.execute(
            "DELETE FROM lane_gap WHERE node=? AND epoch_n=? AND lane=? AND first_seq>?",
            (node, before, name.value, ack),
        )
        record(db, (node, before, name.value), lost, now_ms=now_ms)
        branch += _branch(db, (node, before, name.value), note, ack)
    db.execute("UPDATE epoch SET branch=? WHERE node=? AND n=?", (_text(branch), node, number))


def _branch(
    db: Connection, lane: tuple[int, int, str], note: epochs.Began, ack: int
) -> list[tuple[str, Missing]]:
    """What the device lost of its own facts where Cloudly has those of another writer. `lane`: as of `record`."""
    told = note.lanes[lane[2]]
    here = heads.hash_at(db, lane, told.head)
    compared = here is not None and told.hash is not None
    if here == told.hash if compared else note.why not in epochs.BRANCHED:
        return []  # the facts that are here are, or may be, its own
    return [(lane[2], one) for one in epochs.lost_of_branch(told, note, ack=ack)]


def note_beside(db: Connection, lane: tuple[int, int, str], beside: tuple[Missing, ...]) -> None:
    """What the device lost of its own in this very epoch, where Cloudly has facts of the same numbers."""
    if not beside:
        return
    node, number, name = lane
    here = [one | {"here": True} for one in json.loads(_text([(name, one) for one in beside]))]
    row = db.execute("SELECT branch FROM epoch WHERE node=? AND n=?", (node, number)).fetchone()
    noted = json.loads(row[0])
    noted += [one for one in here if one not in noted]
    db.execute(
        "UPDATE epoch SET branch=? WHERE node=? AND n=?",
        (json.dumps(noted[:MOST_NOTED]), node, number),
    )


def _text(branch: list[tuple[str, Missing]]) -> str:
    """As rows of `lane_gap`, `kinds` in JSON of its own."""
    names = ("first_seq", "last_seq", "why", "since_ms", "until_ms")
    return json.dumps(
        [
            {"lane": lane, "kinds": _kinds(one), **{name: getattr(one, name) for name in names}}
            for lane, one in branch
        ]
    )


def _kinds(missing: Missing) -> str:
    return json.dumps(missing.kinds, sort_keys=True)


def _known_elsewhere(
    db: Connection, at: tuple[int, int], epoch: str, lanes: Mapping[str, int], now_ms: int
) -> None:
    """What the device had outside its journal knows of another epoch, whose end is lost. `at`: node and number."""
    node, number = at
    lost = number_of(db, node, epoch)
    if lost is None or lost >= number:
        return
    acked = {lane["lane"]: lane["ack_seq"] for lane in _lanes(db, node, lost)}
    for name in Lane:
        missing = epochs.left_behind(acked.get(name.value, 0), lanes[name.value])
        record(db, (node, lost, name.value), missing, now_ms=now_ms)


def _lanes(db: Connection, node: int, number: int) -> list[Row]:
    return db.execute(
        "SELECT lane, ack_seq, head_seq FROM lane WHERE node=? AND epoch_n=?", (node, number)
    ).fetchall()


def record(
    db: Connection,
    lane: tuple[int, int, str],
    missing: Iterable[Missing],
    *,
    now_ms: int,
    at_n: int | None = None,
) -> None:
    """Gaps of one lane, which is named by its node, the number of its epoch and its name.

    `at_n`: before which place among the facts of both lanes; None: after all of them.
    """
    db.executemany(
        "INSERT INTO lane_gap(node, epoch_n, lane, first_seq, last_seq, at_ms, why, kinds, since_ms, until_ms,"
        " last_hash, at_n) VALUES(?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(node, epoch_n, lane, first_seq) DO UPDATE SET"
        " last_seq=CASE WHEN lane_gap.last_seq>excluded.last_seq THEN lane_gap.last_seq ELSE excluded.last_seq END",
        [
            (*lane, one.first_seq, one.last_seq, now_ms, one.why,
             _kinds(one), one.since_ms, one.until_ms, one.last_hash, at_n)
            for one in missing
        ],
    )  # fmt: skip
