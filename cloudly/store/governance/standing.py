"""The one question of every order: what speaks against this release on this node, of all that operators have decided.

`release set`, a fleet's move, an enrollment and every rollout ask it; nothing else decides what a node may run.
"""

from __future__ import annotations

from cloudly.governance.floors import Place, Way, first_of
from cloudly.governance.pins import Pin, Scope, in_force, objection
from cloudly.governance.standing import Follows, Known, refusals, standing
from cloudly.problems import BadOrder
from cloudly.rollouts.admission import Standing
from cloudly.store.governance import bans, pins
from cloudly.store.sql import Connection, Row

# Where nothing was decided, which is nearly always, this one question is all.
NODE = " ".join(
    (
        "SELECT n.node_id, n.last_good, n.fleet, f.name AS fleet_name, f.channel, c.name AS channel_name, r.version,",
        "(SELECT a.reason FROM never_again a WHERE a.node=n.id AND a.release=r.id) AS never_again,",
        "EXISTS (SELECT 1 FROM never_again a WHERE a.node=n.id AND a.release=r.id) AS refused_here,",
        "EXISTS (SELECT 1 FROM ban b WHERE b.digest IN (",
        bans.DIGESTS.replace("?1", "?2"),
        ")) AS is_banned,",
        "EXISTS (SELECT 1 FROM channel k JOIN channel_release h ON h.channel=k.id AND h.release=r.id",
        " JOIN channel_release b ON b.channel=k.id AND b.is_floor=1 AND b.seq<h.seq) AS has_floors,",
        "(SELECT count(*) FROM pin p WHERE (p.scope='node' AND p.scope_id=n.id)",
        " OR (p.scope='fleet' AND p.scope_id=n.fleet)) AS pins",
        "FROM node n JOIN fleet f ON f.id=n.fleet JOIN release r ON r.id=?2 LEFT JOIN channel c ON c.id=f.channel",
        "WHERE n.id=?1",
    )
)
RAN = (
    "SELECT h.seq FROM deployment p JOIN channel_release h ON h.channel=?1 AND h.release=p.release"
    " WHERE p.node=?2 AND p.state='succeeded' ORDER BY p.generation DESC LIMIT 1"
)


def standing_of(db: Connection, node: int, release: int, now_ms: int) -> Standing:
    """How it stands, with everything that speaks against it. `granted` is for the rollout that asks to say."""
    return standing(known_of(db, node, release), now_ms)


def must_be_free(db: Connection, node: int, release: int, now_ms: int) -> None:
    """Raises BadOrder with the gravest reason and how to lift it; the node's own never-again is not asked."""
    for why in refusals(standing_of(db, node, release, now_ms)):
        raise BadOrder(why)


def next_step(db: Connection, node: int, release: int) -> int:
    """The release that must come first on the way to that one: a floor, or the release itself."""
    way = first_of(known_of(db, node, release).ways)
    return release if way is None or way.first is None else way.first.release


def own_objection(db: Connection, node: int, release: int, now_ms: int) -> str:
    """What the node's own pin says against it; empty: nothing, or there is none."""
    known = known_of(db, node, release)
    return objection(in_force(known.own_pin, None, now_ms), release, known.runs)


def held_by(db: Connection, node: int, now_ms: int) -> str:
    """The pin that holds the node now, its own or its fleet's, in words; empty: none does."""
    row = db.execute(
        "SELECT n.node_id, n.fleet, f.name AS fleet_name FROM node n JOIN fleet f ON f.id=n.fleet WHERE n.id=?",
        (node,),
    ).fetchone()
    pin = in_force(*_pins(db, node, row), now_ms)
    return "" if pin is None else pin.words


def known_of(db: Connection, node: int, release: int) -> Known:
    """What the rules are asked about."""
    row = db.execute(NODE, (node, release)).fetchone()
    own_pin, fleet_pin = _pins(db, node, row) if row["pins"] else (None, None)
    runs = row["last_good"]
    follows = None
    if row["channel"] is not None:
        follows = Follows(row["channel_name"], place_of(db, row["channel"], release))
    return Known(
        release=release,
        version=row["version"],
        runs=runs,
        banned=bans.banned(db, release) if row["is_banned"] else "",
        never_again=(row["never_again"] or "no reason was given") if row["refused_here"] else "",
        own_pin=own_pin,
        fleet_pin=fleet_pin,
        follows=follows,
        ways=_ways(db, node, runs, release, row["channel"]) if row["has_floors"] else (),
    )


def _pins(db: Connection, node: int, row: Row) -> tuple[Pin | None, Pin | None]:
    return (
        pins.of(db, Scope.NODE, node, row["node_id"]),
        pins.of(db, Scope.FLEET, row["fleet"], row["fleet_name"]),
    )


def place_of(db: Connection, channel: int, release: int) -> Place | None:
    """Of a release in a channel; None: it is not in it."""
    row = db.execute(
        "SELECT seq, published_at_ms, withdrawn_at_ms, is_floor FROM channel_release WHERE channel=? AND release=?",
        (channel, release),
    ).fetchone()
    if row is None:
        return None
    return Place(row[0], release, "", row[1] is not None, row[2] is not None, bool(row[3]))


def _ways(
    db: Connection, node: int, runs: int | None, release: int, follows: int | None
) -> tuple[Way, ...]:
    """In the channel that its fleet follows; of a fleet that follows none, in each that offers the release."""
    rows = db.execute(
        "SELECT h.channel, h.seq, c.name, (SELECT r.seq FROM channel_release r"
        "  WHERE r.channel=h.channel AND r.release=?2) AS ran"
        " FROM channel c JOIN channel_release h ON h.channel=c.id AND h.release=?1"
        " WHERE h.published_at_ms IS NOT NULL"
        " AND EXISTS (SELECT 1 FROM channel_release b WHERE b.channel=h.channel AND b.is_floor=1 AND b.seq<h.seq)"
        " ORDER BY h.channel",
        (release, runs),
    ).fetchall()
    return tuple(
        Way(row["name"], _ran(db, node, row), row["seq"], _floors(db, row["channel"], row["seq"]))
        for row in rows
        if follows in {None, row["channel"]}
    )


def _ran(db: Connection, node: int, row: Row) -> int | None:
    """Where in the channel the node is: by what it runs, else by what of it succeeded there last."""
    if row["ran"] is not None:
        return int(row["ran"])
    found = db.execute(RAN, (row["channel"], node)).fetchone()
    return None if found is None else int(found[0])


def _floors(db: Connection, channel: int, below: int) -> tuple[Place, ...]:
    return tuple(
        Place(row[0], row[1], row[2], row[3] is not None, row[4] is not None, floor=True)
        for row in db.execute(
            "SELECT h.seq, h.release, r.version, h.published_at_ms, h.withdrawn_at_ms FROM channel_release h"
            " JOIN release r ON r.id=h.release WHERE h.channel=? AND h.is_floor=1 AND h.seq<? ORDER BY h.seq",
            (channel, below),
        ).fetchall()
    )
