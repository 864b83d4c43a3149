"""Errors on the wire: RFC 9457 problem details, media type `application/problem+json`."""

from __future__ import annotations

from interfaces.journal import Ack
from interfaces.wire import Line, Name, Wire

PROBLEM_MEDIA_TYPE = "application/problem+json"


class Problem(Wire):
    """What went wrong, for a program (`code`) and for a person (`title`, `detail`).

    `code` is one of ours and stable: `token-unknown`, `token-expired`, `token-revoked`, `token-used-up`,
    `registered-already`, `enrollment-closed`, `node-unknown`, `node-revoked`, `node-mismatch`, `login-unknown`,
    `gap`, `fork`, `fenced`, `too-large`, `malformed`, `busy`, `not-found`, `internal`; to operators also
    `api-token-unknown`, `api-token-expired`, `api-token-revoked`, `not-allowed`, `conflict`.
    """

    type: str = "about:blank"
    title: Name
    status: int
    code: Name
    detail: Line = ""
    retry_after_s: float | None = None
    ack: Ack | None = None
    """With `gap` and `fork`: what Cloudly does have, so that the device can go on from there."""
