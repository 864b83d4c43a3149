"""Who may enroll: pure decisions over the rows of one join token, one use of it and one node.

Rules (DESIGN.md §5):
- A token is used up for a pair (node, secret). The same pair may ask again: its answer may have been lost.
- A node's agent and its Supervisor are one node with two credentials: together they count as one use.
- Expiry stops new pairs, not a pair that was admitted in time; revocation of the token stops both.
- A revoked node comes back with a new use of a token only: what it used before the revocation admits it no more.
- The secret that the node's present credential was made with asks for that credential again, whatever the token.
- Anyone else is refused, whichever way he differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cloudly.problems import Refused


class Admission(StrEnum):
    NEW_USE = "new-use"
    """One use of the token is consumed."""
    SECOND_CREDENTIAL = "second-credential"
    """The node's other half used this token before: nothing is consumed."""
    REPEAT = "repeat"
    """The very same ask again."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    id: int
    uses_left: int
    expires_at_ms: int | None
    revoked_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Use:
    """What one node has done with one join token."""

    presented: bytes | None
    """Hash of the secret that this half of the node (agent or Supervisor) came with; None: only the other half came."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a node is at this moment, for the half of it that asks; the defaults are a stranger's."""

    revoked: bool = False
    secret_hash: bytes | None = None
    """Of the agent's secret that its credential was made with."""


STRANGER = Standing()


def admit(
    token: JoinToken | None,
    use: Use | None,
    standing: Standing = STRANGER,
    *,
    presented: bytes,
    now_ms: int,
) -> Admission:
    """Whether this ask is admitted, and as what. Raises Refused."""
    admission = _by_token(token, use, presented=presented, now_ms=now_ms)
    if standing.revoked:
        if admission is not Admission.NEW_USE:
            raise Refused("node-revoked", "A fresh join token brings it back.")
        return admission
    return Admission.REPEAT if standing.secret_hash == presented else admission


def _by_token(
    token: JoinToken | None, use: Use | None, *, presented: bytes, now_ms: int
) -> Admission:
    if token is None:
        raise Refused("token-unknown")
    if token.revoked_at_ms is not None:
        raise Refused("token-revoked")
    if use is not None and use.presented is not None:
        if use.presented == presented:
            return Admission.REPEAT
        raise Refused(
            "token-used-up",
            "It was used for this node with another secret; a reflash needs a fresh token.",
        )
    if token.expires_at_ms is not None and token.expires_at_ms <= now_ms:
        raise Refused("token-expired")
    if use is not None:
        return Admission.SECOND_CREDENTIAL
    if token.uses_left <= 0:
        raise Refused("token-used-up")
    return Admission.NEW_USE


@dataclass(frozen=True, slots=True)
class Credential:
    """A node's present credential, as far as it is at rest."""

    secret_hash: bytes
    nonce: str
    generation: int
    still_open: bool
    """No heartbeat has been authenticated with it yet."""


def may_repeat(credential: Credential | None, *, presented: bytes) -> Credential:
    """The credential to hand out once more. Raises Refused when it was used or replaced."""
    if credential is None or credential.secret_hash != presented or not credential.still_open:
        raise Refused(
            "enrollment-closed",
            "A copy of this disk, or an older state of it, enrolls anew with a fresh join token.",
        )
    return credential
