"""How a device becomes a node: its agent's enrollment and its Supervisor's registration, with one join token."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cloudly.enrollment import Admission, Credential, JoinToken, Standing, Use, admit, may_repeat
from cloudly.epochs import ENROLLED
from cloudly.problems import Refused
from cloudly.store import epochs, outbox, rotation, voices, wanted
from cloudly.store.sql import Connection, Row
from cloudly.tokens import derive_node_token, fingerprint


class Half(StrEnum):
    """A node enrolls twice: its agent with an enrollment secret, its Supervisor with a key of its own."""

    AGENT = "agent"
    SUPERVISOR = "supervisor"


USE = {
    Half.AGENT: "SELECT secret_hash FROM join_use WHERE token=? AND node=?",
    Half.SUPERVISOR: "SELECT device_key_hash FROM join_use WHERE token=? AND node=?",
}
STANDING = (
    "SELECT n.id, coalesce(n.revoked_at_ms, n.retired_at_ms) refused_at_ms, c.secret_hash"
    " FROM node n LEFT JOIN credential c ON c.node=n.id WHERE n.node_id=?"
)
RECORD = {
    Half.AGENT: (
        "INSERT INTO join_use(token, node, secret_hash, at_ms, agent_at_ms) VALUES(?1,?2,?3,?4,?4)"
        " ON CONFLICT(token, node) DO UPDATE SET secret_hash=?3, agent_at_ms=?4"
    ),
    Half.SUPERVISOR: (
        "INSERT INTO join_use(token, node, device_key_hash, at_ms, supervisor_at_ms) VALUES(?1,?2,?3,?4,?4)"
        " ON CONFLICT(token, node) DO UPDATE SET device_key_hash=?3, supervisor_at_ms=?4"
    ),
}


@dataclass(frozen=True, slots=True)
class Ask:
    """An agent's wish to enroll. `nonce` and `deployment` are drawn for it and used only if needed."""

    join_token: str
    node_id: str
    secret: str
    epoch: str
    agent_version: str
    hostname: str
    device_type: str
    now_ms: int
    nonce: str
    deployment: str
    ticket: int | None = None
    """The node whose enrollment ticket it came with, in a join token's place."""


@dataclass(frozen=True, slots=True)
class DeviceAsk:
    """A Supervisor's registration: it chose its uuid and its key itself."""

    join_token: str
    node_id: str
    api_key: str
    device_type: str
    info: str
    now_ms: int
    deployment: str
    exchange: bool = False
    """It knows that it is registered, and wants this key instead of the one that is known."""
    agent_version: str = ""
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class Enrolled:
    node_id: str
    node_token: str
    generation: int


def check_join_token(db: Connection, token: str) -> None:
    """Whether it is one at all, before anything else of the ask is looked at. Raises Refused."""
    known = db.execute("SELECT 1 FROM join_token WHERE hash=?", (fingerprint(token),)).fetchone()
    if known is None:
        raise Refused("token-unknown")


def enroll(db: Connection, ask: Ask) -> Enrolled:
    """A node and its token. Raises Refused; then nothing is used up."""
    presented = fingerprint(ask.secret)
    if ask.ticket is not None:
        _is_for_the_first(db, ask.ticket, presented)
    admission, node = _admit(db, ask, Half.AGENT, presented)
    if admission is Admission.REPEAT:
        credential = may_repeat(_credential(db, node), presented=presented)
    else:
        _describe(db, node, ask)
        credential = _new_credential(db, node, presented, ask)
        voices.settle(db, node)
        data = {"generation": credential.generation, "agent_version": ask.agent_version}
        outbox.tell_of_node(db, "node.enrolled", node, data, ask.now_ms)
    _begin_epoch(db, node, ask)
    return Enrolled(
        node_id=ask.node_id,
        node_token=derive_node_token(ask.secret, node_id=ask.node_id, nonce=credential.nonce),
        generation=credential.generation,
    )


def _is_for_the_first(db: Connection, node: int, presented: bytes) -> None:
    """A ticket lets in a node's first agent, and the first one after a reflash, for which the Supervisor came anew.

    None takes the place of one that enrolled since. Raises Refused.
    """
    row = db.execute(
        "SELECT c.secret_hash, c.enrolled_at_ms < d.registered_at_ms AND (SELECT count(*) FROM join_use u"
        " WHERE u.node=c.node AND u.device_key_hash IS NOT NULL) > 1"
        " FROM credential c JOIN device d ON d.node=c.node WHERE c.node=?",
        (node,),
    ).fetchone()
    if row is not None and row[0] != presented and not row[1]:
        raise Refused("token-used-up", "This node has an agent; another needs a fresh join token.")


def _begin_epoch(db: Connection, node: int, ask: Ask) -> None:
    """The epoch it asks with is the node's newest. A new one is a reflash: its release is ordered again."""
    newest = epochs.newest(db, node)
    known = epochs.number_of(db, node, ask.epoch)
    if known is not None:
        if known < newest:
            raise Refused("fenced")
        return
    epochs.begin(db, node, ask.epoch, now_ms=ask.now_ms, why=ENROLLED)
    if newest:
        wanted.order_again(db, node, deployment=ask.deployment, now_ms=ask.now_ms)


def register_device(db: Connection, ask: DeviceAsk) -> int | None:
    """The device id; None: its uuid is registered with another key, and it did not say that it knows.

    Raises Refused; then nothing is used up.
    """
    presented = fingerprint(ask.api_key)
    present = _device_key(db, ask.node_id)
    if present != presented and _is_anothers(db, presented):
        raise Refused("node-mismatch", "Another device has this key: a card was copied.")
    if present is not None and present != presented:
        admission, _ = _judge(db, ask, Half.SUPERVISOR, presented)
        if admission is Admission.REPEAT:
            raise Refused(
                "token-used-up", "This device registered anew since; it needs a fresh one."
            )
        if not ask.exchange:
            return None
    admission, node = _admit(db, ask, Half.SUPERVISOR, presented)
    if admission is not Admission.REPEAT:
        _new_device_key(db, node, presented, ask)
    return node


def _is_anothers(db: Connection, presented: bytes) -> bool:
    return db.execute("SELECT 1 FROM device WHERE key_hash=?", (presented,)).fetchone() is not None


def _device_key(db: Connection, node_id: str) -> bytes | None:
    row = db.execute(
        "SELECT d.key_hash FROM device d JOIN node n ON n.id=d.node WHERE n.node_id=?", (node_id,)
    ).fetchone()
    return None if row is None else row[0]


def _new_device_key(db: Connection, node: int, presented: bytes, ask: DeviceAsk) -> None:
    """What the Supervisor reported before is forgotten: another life begins, which reports anew."""
    db.execute(
        "INSERT INTO device(node, key_hash, registered_at_ms, info) VALUES(?1,?2,?3,?4)"
        " ON CONFLICT(node) DO UPDATE SET key_hash=?2, registered_at_ms=?3, report=NULL, report_at_ms=NULL,"
        " api_secret_hash=NULL, info=CASE ?4 WHEN '{}' THEN device.info ELSE ?4 END",
        (node, presented, ask.now_ms, ask.info),
    )
    db.execute("DELETE FROM device_config WHERE node=?", (node,))  # it tells again what it finds


def join_token(db: Connection, token: str) -> JoinToken | None:
    """What is known of a join token; None: it is none."""
    row = db.execute(
        "SELECT id, uses_left, expires_at_ms, revoked_at_ms FROM join_token WHERE hash=?",
        (fingerprint(token),),
    ).fetchone()
    return None if row is None else JoinToken(*row)


def find_device(db: Connection, token: str, node_id: str, *, now_ms: int) -> int:
    """The id of a device that this join token may still exchange the key of. Raises Refused."""
    known = join_token(db, token)
    node = db.execute(STANDING, (node_id,)).fetchone()
    if known is None or node is None:
        raise Refused("token-unknown")
    used = db.execute(USE[Half.SUPERVISOR], (known.id, node["id"])).fetchone()
    if (
        used is None
    ):  # then the exchange will be a new use: whether there is one left is decided here
        admit(known, None, presented=b"", now_ms=now_ms)
    elif known.revoked_at_ms is not None:
        raise Refused("token-revoked")
    return int(node["id"])


def _judge(
    db: Connection, ask: Ask | DeviceAsk, half: Half, presented: bytes
) -> tuple[Admission, JoinToken]:
    """Whether one half of a node is admitted, and as what; nothing is written. Raises Refused."""
    token = _token_of(db, ask)
    node = db.execute(STANDING, (ask.node_id,)).fetchone()
    used = token and node and db.execute(USE[half], (token.id, node["id"])).fetchone()
    use = Use(used[0]) if used else None
    standing = _standing(node, half)
    admission = admit(token, use, standing, presented=presented, now_ms=ask.now_ms)
    assert token is not None  # noqa: S101 - admit refuses a missing one
    return admission, token


def _admit(
    db: Connection, ask: Ask | DeviceAsk, half: Half, presented: bytes
) -> tuple[Admission, int]:
    """Admit or refuse one half of a node; a new use is recorded and, if need be, the node created."""
    admission, token = _judge(db, ask, half, presented)
    row = db.execute("SELECT id FROM node WHERE node_id=?", (ask.node_id,)).fetchone()
    if admission is Admission.REPEAT:
        return admission, int(row[0])
    node = int(row[0]) if row else _create(db, ask, token)
    if admission is Admission.NEW_USE:
        db.execute("UPDATE join_token SET uses_left=uses_left-1 WHERE id=?", (token.id,))
        # A fresh token is the operator's yes, also for a node that was revoked or retired before.
        db.execute(
            "UPDATE node SET revoked_at_ms=NULL, retired_at_ms=NULL, retirement=NULL WHERE id=?",
            (node,),
        )
    db.execute(RECORD[half], (token.id, node, presented, ask.now_ms))
    return admission, node


def _token_of(db: Connection, ask: Ask | DeviceAsk) -> JoinToken | None:
    """The join token that it comes with, or that its ticket stands for. Raises Refused."""
    ticket = ask.ticket if isinstance(ask, Ask) else None
    if ticket is None:
        return join_token(db, ask.join_token)
    own = db.execute("SELECT 1 FROM node WHERE id=? AND node_id=?", (ticket, ask.node_id))
    if own.fetchone() is None:
        raise Refused("token-unknown", "It is the enrollment ticket of another node.")
    row = db.execute(
        "SELECT t.id, t.uses_left, NULL, t.revoked_at_ms FROM join_use u JOIN join_token t ON t.id=u.token"
        " WHERE u.node=? AND u.device_key_hash IS NOT NULL ORDER BY u.at_ms DESC, t.id DESC LIMIT 1",
        (ticket,),
    ).fetchone()  # no expiry: its Supervisor came in time, and downloading the agent may take long
    return None if row is None else JoinToken(*row)


def _standing(node: Row | None, half: Half) -> Standing:
    if node is None:
        return Standing()
    return Standing(
        revoked=node["refused_at_ms"] is not None,
        secret_hash=node["secret_hash"] if half is Half.AGENT else None,
    )


def _create(db: Connection, ask: Ask | DeviceAsk, token: JoinToken) -> int:
    """A node in the fleet of its join token and with its labels, with what that fleet shall run.

    A node that is known keeps the fleet and the labels that it has, whatever token it comes back with.
    """
    row = db.execute(
        "INSERT INTO node(node_id, hostname, device_type, agent_version, created_at_ms, fleet, labels)"
        " SELECT ?, ?, ?, ?, CAST(? AS BIGINT), t.fleet, t.labels FROM join_token t WHERE t.id=? RETURNING id",
        (ask.node_id, ask.hostname, ask.device_type, ask.agent_version, ask.now_ms, token.id),
    ).fetchone()
    wanted.order_default(db, int(row[0]), deployment=ask.deployment, now_ms=ask.now_ms)
    return int(row[0])


def _describe(db: Connection, node: int, ask: Ask) -> None:
    db.execute(
        "UPDATE node SET hostname=?, device_type=?, agent_version=? WHERE id=?",
        (ask.hostname, ask.device_type, ask.agent_version, node),
    )


def _credential(db: Connection, node: int) -> Credential | None:
    row = db.execute(
        "SELECT secret_hash, nonce, generation, still_open FROM credential WHERE node=?", (node,)
    ).fetchone()
    return None if row is None else Credential(row[0], row[1], row[2], bool(row[3]))


def _new_credential(db: Connection, node: int, presented: bytes, ask: Ask) -> Credential:
    token = derive_node_token(ask.secret, node_id=ask.node_id, nonce=ask.nonce)
    before = db.execute(
        "SELECT token_hash, next_hash FROM credential WHERE node=?", (node,)
    ).fetchone()
    for one in before or ():
        if one is not None:
            rotation.forget(db, one, node)
    row = db.execute(
        "INSERT INTO credential(node, token_hash, generation, secret_hash, nonce, still_open,"
        " enrolled_at_ms) VALUES(?,?,1,?,?,1,?) ON CONFLICT(node) DO UPDATE SET"
        " token_hash=excluded.token_hash, generation=credential.generation+1, still_open=1,"
        " secret_hash=excluded.secret_hash, nonce=excluded.nonce,"
        " enrolled_at_ms=excluded.enrolled_at_ms, rotate_asked_at_ms=NULL, next_hash=NULL, rotated_at_ms=NULL"
        " RETURNING secret_hash, nonce, generation, still_open",
        (node, fingerprint(token), presented, ask.nonce, ask.now_ms),
    ).fetchone()
    return Credential(row[0], row[1], row[2], bool(row[3]))
