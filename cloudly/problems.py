"""What can go wrong in Cloudly.

CloudlyProblem
├── Refused             a client asked for what it may not have; carries the problem that it is told
├── BadSettings         the environment or an option; the message names it and gives an example
├── BadOrder            the operator asked for what cannot be; nothing was changed
│   └── NoSuch              it names something that there is not
└── StoreProblem        the database
    ├── StoreUnavailable    busy, full or failing: nothing was written, ask again later
    ├── StoreUnsafe         the settings that durability needs did not take
    ├── FromTheFuture       written by a newer Cloudly
    ├── AlreadyServing      another `cloudly serve` holds this data directory, or may not share it
    └── KeysDiffer          a key in this data directory is not the one of Cloudly's other servers
"""

from __future__ import annotations

from typing import Any

from interfaces.journal import Ack
from interfaces.problem import Problem

# code: status, title. One table, so that the same refusal has the same shape everywhere.
# fmt: off
REFUSALS: dict[str, tuple[int, str]] = {
    "token-unknown":     (401, "The join token is not known."),
    "token-expired":     (403, "The join token has expired."),
    "token-revoked":     (403, "The join token was revoked."),
    "token-used-up":     (403, "The join token is used up."),
    "registered-already": (409, "This device is registered with another key."),
    "enrollment-closed": (409, "This enrollment is closed: the node has used its node token."),
    "node-unknown":      (401, "The node token is not known."),
    "node-revoked":      (401, "The node was revoked."),
    "node-mismatch":     (403, "The credential is another node's."),
    "api-token-unknown": (401, "The API token is not known."),
    "api-token-expired": (401, "The API token has expired."),
    "api-token-revoked": (401, "The API token was revoked."),
    "not-allowed":       (403, "The role of this API token does not allow that."),
    "login-unknown":     (401, "Neither a device nor a publisher of this name and password."),
    "gap":               (409, "Facts are missing before this batch."),
    "fork":              (409, "This journal is not the one that Cloudly has."),
    "fenced":            (409, "Another device, or a newer journal, speaks as this node now."),
    "conflict":          (409, "This cannot be done as things are; nothing was changed."),
    "too-large":         (413, "The body is too large."),
    "malformed":         (422, "The request cannot be understood."),
    "busy":              (503, "Cloudly cannot take this now."),
    "not-found":         (404, "There is nothing here."),
    "internal":          (500, "Cloudly failed. It is not your fault."),
}
# fmt: on


class CloudlyProblem(Exception):
    """Something that Cloudly has a name for."""


class Refused(CloudlyProblem):
    """A refusal with its code; `status` only where it differs from the table."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        ack: Ack | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        usual, title = REFUSALS[code]
        self.problem = Problem(
            title=title,
            status=usual if status is None else status,
            code=code,
            detail=detail,
            ack=ack,
            retry_after_s=retry_after_s,
        )
        super().__init__(f"{code}: {detail or title}")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Refused, (self.problem.code, self.problem.detail))


class BadSettings(CloudlyProblem):
    """A setting is missing or malformed."""


class BadOrder(CloudlyProblem):
    """What the operator asked for cannot be done; nothing was changed."""


class NoSuch(BadOrder):
    """The operator named something that there is not: `what`, in a word."""

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what

    def __reduce__(self) -> tuple[Any, ...]:
        return (NoSuch, (self.what, str(self)))


class StoreProblem(CloudlyProblem):
    """The database."""


class StoreUnavailable(StoreProblem):
    """Nothing was written; ask again later."""


class StoreUnsafe(StoreProblem):
    """SQLite did not take the settings that durability needs."""


class FromTheFuture(StoreProblem):
    """The database was written by a newer Cloudly."""


class AlreadyServing(StoreProblem):
    """Another process serves this data directory."""


class KeysDiffer(StoreProblem):
    """A key in this data directory is not the one of Cloudly's other servers."""
