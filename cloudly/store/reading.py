"""Questions of pages and of the CLI. They read what is committed and change nothing."""

from __future__ import annotations

from collections.abc import Sequence

from cloudly.problems import BadOrder, NoSuch
from cloudly.store.sql import Connection, Row

NODES = (
    "SELECT n.id, n.node_id, n.hostname, n.device_type, n.agent_version, n.created_at_ms, n.revoked_at_ms,"
    " n.labels, n.quarantined_at_ms, n.quarantine, n.retired_at_ms, n.retirement, c.generation AS token_generation,"
    " coalesce(c.rotated_at_ms, c.enrolled_at_ms) AS token_since_ms, c.rotate_asked_at_ms, c.next_hash,"
    " n.needs_operator, (SELECT name FROM fleet WHERE id=n.fleet) AS fleet, l.last_seen_at_ms, l.observed_generation,"
    " s.reported, d.generation,"
    " p.deployment, p.state AS deployment_state, p.closed AS deployment_closed, p.rollback_of,"
    " p.state_at_ms AS deployment_state_at_ms,"
    " r.version AS wanted_version,"
    " r.commit_id AS wanted_release, g.version AS last_good,"
    " f.count AS fenced, f.first_at_ms AS fenced_since_ms, f.last_at_ms AS fenced_at_ms, f.alarm, f.told"
    " FROM node n LEFT JOIN node_live l ON l.node=n.id LEFT JOIN node_status s ON s.node=n.id"
    " LEFT JOIN desired d ON d.node=n.id LEFT JOIN deployment p ON p.deployment=d.deployment"
    " LEFT JOIN release r ON r.id=p.release LEFT JOIN release g ON g.id=n.last_good"
    " LEFT JOIN fence f ON f.node=n.id LEFT JOIN credential c ON c.node=n.id"
)
SHORTEST_PREFIX = 4


def nodes(db: Connection, *, limit: int = 500, retired: bool = False) -> list[Row]:
    """The newest nodes first. `retired`: those too."""
    which = "" if retired else " WHERE n.retired_at_ms IS NULL"
    return db.execute(f"{NODES}{which} ORDER BY n.id DESC LIMIT ?", (limit,)).fetchall()


def nodes_of(db: Connection, numbers: Sequence[int]) -> list[Row]:
    """These, in that order. By one question each: a list of parameters has another limit on each engine."""
    rows = (db.execute(f"{NODES} WHERE n.id=?", (number,)).fetchone() for number in numbers)
    return [row for row in rows if row is not None]


def node(db: Connection, node_id: str) -> Row | None:
    found: Row | None = db.execute(f"{NODES} WHERE n.node_id=?", (node_id,)).fetchone()
    return found


def find(db: Connection, wanted: str) -> Row:
    """A node by its id, a prefix of it, or its host name. Raises BadOrder when none or several are meant.

    A retired node is meant only where no other is: what took its place may have its name.
    """
    exact = node(db, wanted)
    if exact is not None:
        return exact
    prefix = wanted if len(wanted) >= SHORTEST_PREFIX else ""
    named = "(n.hostname=?1 OR (?2<>'' AND substr(n.node_id, 1, length(?2))=?2))"
    found: list[Row] = []
    for which in ("n.retired_at_ms IS NULL", "n.retired_at_ms IS NOT NULL"):
        asked = f"{NODES} WHERE {named} AND {which} LIMIT 2"
        found = found or db.execute(asked, (wanted, prefix)).fetchall()
    if not found:
        raise NoSuch("node", f"there is no node {wanted!r}: `cloudly node list` shows them")
    if len(found) > 1:
        raise BadOrder(
            f"{wanted!r} means several nodes: give the whole id, `cloudly node list` shows them"
        )
    row: Row = found[0]
    return row


def count_nodes(db: Connection) -> int:
    """Without those that are retired."""
    return int(db.execute("SELECT count(*) FROM node WHERE retired_at_ms IS NULL").fetchone()[0])


def versions(db: Connection) -> dict[str, str]:
    """Commit to version, of all releases."""
    return dict(db.execute("SELECT commit_id, version FROM release").fetchall())


def releases(db: Connection) -> list[Row]:
    return db.execute(
        "SELECT r.commit_id, r.version, r.created_at_ms,"
        " (SELECT count(*) FROM desired d JOIN deployment p ON p.deployment=d.deployment"
        "  JOIN node n ON n.id=d.node WHERE p.release=r.id AND n.retired_at_ms IS NULL) wanted_by,"
        " (SELECT count(*) FROM deployment p WHERE p.release=r.id AND p.state='succeeded') succeeded,"
        " (SELECT count(*) FROM never_again a WHERE a.release=r.id) never_again,"
        " (SELECT json_group_object(s.name, i.image) FROM release_service i JOIN service s ON s.id=i.service"
        "  WHERE i.release=r.id) images"
        " FROM release r ORDER BY r.id DESC"
    ).fetchall()


def transitions(db: Connection, node_n: int, *, limit: int = 50) -> list[Row]:
    """A node's last transitions, the newest first, in the journal's order."""
    return db.execute(
        "SELECT * FROM transition WHERE node=? ORDER BY epoch_n DESC, n DESC LIMIT ?",
        (node_n, limit),
    ).fetchall()


def streams(db: Connection, node_n: int) -> list[Row]:
    return db.execute(
        "SELECT * FROM stream WHERE node=? ORDER BY epoch_n DESC, n DESC LIMIT 20", (node_n,)
    ).fetchall()


def lanes(db: Connection, node_n: int) -> list[Row]:
    """Where each lane of each epoch stands, and what is missing or opaque in it."""
    return db.execute(
        "SELECT e.epoch, e.n epoch_n, e.closed_at_ms, l.lane, l.ack_seq, l.head_seq,"
        " (SELECT count(*) FROM lane_gap g WHERE (g.node, g.epoch_n, g.lane)=(l.node, l.epoch_n, l.lane)"
        "  AND g.why<>'retention') gaps,"
        " (SELECT coalesce(sum(g.last_seq-g.first_seq+1), 0) FROM lane_gap g"
        "  WHERE (g.node, g.epoch_n, g.lane)=(l.node, l.epoch_n, l.lane) AND g.why<>'retention') missing,"
        " (SELECT coalesce(sum(g.last_seq-g.first_seq+1), 0) FROM lane_gap g"
        "  WHERE (g.node, g.epoch_n, g.lane)=(l.node, l.epoch_n, l.lane) AND g.why='retention') let_go,"
        " (SELECT coalesce(sum(c.opaque), 0) FROM journal_chunk c"
        "  WHERE (c.node, c.epoch_n, c.lane)=(l.node, l.epoch_n, l.lane)) opaque"
        " FROM lane l JOIN epoch e ON e.node=l.node AND e.n=l.epoch_n WHERE l.node=?"
        " ORDER BY e.n DESC, l.lane LIMIT 10",
        (node_n,),
    ).fetchall()


def deployments(db: Connection, node_n: int) -> list[Row]:
    return db.execute(
        "SELECT p.*, r.version, r.commit_id FROM deployment p JOIN release r ON r.id=p.release"
        " WHERE p.node=? ORDER BY p.generation DESC LIMIT 20",
        (node_n,),
    ).fetchall()


def enrollments(db: Connection, node_n: int) -> list[Row]:
    """The join tokens that let this node in, the newest first, and whether one took over from another."""
    return db.execute(
        "SELECT u.token, t.name, u.at_ms, u.secret_hash IS NOT NULL agent, u.device_key_hash IS NOT NULL supervisor,"
        " EXISTS (SELECT 1 FROM join_use e WHERE e.node=u.node AND (e.at_ms, e.token)<(u.at_ms, u.token)"
        "  AND (e.secret_hash<>u.secret_hash OR e.device_key_hash<>u.device_key_hash)) took_over"
        " FROM join_use u JOIN join_token t ON t.id=u.token WHERE u.node=?"
        " ORDER BY u.at_ms DESC, u.token DESC LIMIT 20",
        (node_n,),
    ).fetchall()


def never_again(db: Connection, node_n: int) -> list[Row]:
    return db.execute(
        "SELECT r.version, r.commit_id, a.reason, a.at_ms, a.deployment FROM never_again a"
        " JOIN release r ON r.id=a.release WHERE a.node=?",
        (node_n,),
    ).fetchall()


def images(db: Connection, commit: str) -> dict[str, str]:
    """The image of each service of a release."""
    return dict(
        db.execute(
            "SELECT s.name, i.image FROM release r JOIN release_service i ON i.release=r.id"
            " JOIN service s ON s.id=i.service WHERE r.commit_id=? ORDER BY s.name",
            (commit,),
        ).fetchall()
    )


def services(db: Connection) -> dict[int, str]:
    """Name of each service, by its number, which is what a Supervisor knows it by."""
    return dict(db.execute("SELECT id, name FROM service").fetchall())
