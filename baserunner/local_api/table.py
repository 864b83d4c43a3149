"""The endpoints of the local API: the closed list that routes and OpenAPI document are both made from."""

from __future__ import annotations

from dataclasses import dataclass, field

from interfaces.local import Acquire, Handshake, Held, Lock, Locks, Release, Renew, RuntimeStatus
from interfaces.wire import Wire

MOST_BODY_BYTES = 16 * 1024

ALWAYS: dict[int, str] = {
    401: "token-unknown: no capability token, or one of an earlier boot",
    403: "not-allowed: this peer, or this Host, Origin or Referer, may not ask",
    429: "busy: too many requests; `retry-after` says when",
    503: "busy: too many connections, or the journal cannot be written",
}
WITH_A_BODY: dict[int, str] = {
    400: "malformed: the body is not what is asked for",
    413: f"too-large: at most {MOST_BODY_BYTES} bytes are taken",
    415: "malformed: the body must be application/json",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`{lock}` in a path is the id of a lock."""

    name: str
    method: str
    path: str
    does: str
    answers: type[Wire]
    status: int = 200
    asks: type[Wire] | None = None
    refuses: dict[int, str] = field(default_factory=dict)
    """Besides what every one refuses."""

    @property
    def refusals(self) -> dict[int, str]:
        """All of them, in the order of their status."""
        all_of_them = ALWAYS | (WITH_A_BODY if self.asks else {})
        for status, words in self.refuses.items():
            all_of_them[status] = "; ".join(filter(None, (all_of_them.get(status), words)))
        return dict(sorted(all_of_them.items()))


LATE = {
    403: "forbidden: the key is another lock's",
    404: "not-found: there is no such lock, or it has ended",
}

ENDPOINTS = (
    Endpoint("handshake", "GET", "/v1/handshake", "Who answers, and what it can do.", Handshake),
    Endpoint("status", "GET", "/v1/status", "What to show of BaseOS.", RuntimeStatus),
    Endpoint("locks", "GET", "/v1/locks", "The locks that are held, the oldest first.", Locks),
    Endpoint(
        "acquire",
        "POST",
        "/v1/locks",
        "Hold updates up. The same `request_id` again is answered with the same lock.",
        Held,
        status=201,
        asks=Acquire,
        refuses={
            403: "forbidden: another owner has used that `request_id`",
            409: "locked-out: an update is being applied now; busy: too many locks are held; conflict: that "
            "`request_id` had a lock that has ended",
            503: "unavailable: the lock cannot be shown to the Supervisor",
        },
    ),
    Endpoint(
        "renew",
        "POST",
        "/v1/locks/{lock}/renew",
        "Hold it for `ttl_s` from now on.",
        Lock,
        asks=Renew,
        refuses=LATE,
    ),
    Endpoint(
        "release",
        "POST",
        "/v1/locks/{lock}/release",
        "Let go. The same again is the same answer.",
        Lock,
        asks=Release,
        refuses=LATE,
    ),
)
