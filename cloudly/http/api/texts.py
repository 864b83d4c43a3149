"""The texts that the API takes, each with the only form that it may have: nothing else comes near the database."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from cloudly import labels
from cloudly.durations import FORM
from cloudly.governance.people import LONGEST_TEXT, note
from cloudly.problems import BadOrder
from cloudly.store import outbox
from cloudly.store.governance.bans import DIGEST


def _printable(value: str) -> str:
    if not labels.is_value(value):
        raise ValueError("it must be printable")
    return value


FleetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
TokenName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x1f\x7f]{1,200}$")]
ReleaseName = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x1f\x7f]{1,200}$")]
"""A commit, its beginning, or a version."""
PublisherName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Prefix = Annotated[str, StringConstraints(pattern=r"^[a-z0-9._/-]{0,200}$")]
Words = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{0,200}$")]
"""A name for people, in one line."""
ChannelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Banned = Annotated[
    str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64}|[A-Za-z0-9][A-Za-z0-9._-]{0,63})$")
]
"""The digest of an image, or the whole commit of a release."""


def _digest_or_name(text: str) -> str:
    if text.startswith("sha256:") and DIGEST.fullmatch(text) is None:
        raise ValueError("a digest is sha256: and 64 digits, 0-9 and a-f")
    return text


DigestOrRelease = Annotated[ReleaseName, AfterValidator(_digest_or_name)]
WebhookName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
WebhookKind = Annotated[str, StringConstraints(pattern=f"^({outbox.PATTERN.pattern})$")]
"""deployment.*, node.revoked, *"""
LabelKey = Annotated[str, StringConstraints(pattern=f"^{labels.KEY.pattern}$")]
LabelValue = Annotated[
    str, StringConstraints(max_length=labels.MOST_CHARACTERS), AfterValidator(_printable)
]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=labels.MOST)]
Duration = Annotated[str, StringConstraints(pattern=f"^({FORM})$")]
"""24h, 30m, 90s, 7d, or never."""


def _line(text: str) -> str:
    """As it is kept: one line, without a credential that was pasted into it."""
    try:
        return note(text)
    except BadOrder:
        raise ValueError(
            f"one line of at most {LONGEST_TEXT} characters, each of which can be seen"
        ) from None


def _said(text: str) -> str:
    if not text:
        raise ValueError("say why: whoever meets it will ask")
    return text


Note = Annotated[str, StringConstraints(max_length=LONGEST_TEXT), AfterValidator(_line)]
"""One line that is kept with what was ordered, or nothing."""
Reason = Annotated[
    str,
    StringConstraints(min_length=1, max_length=LONGEST_TEXT),
    AfterValidator(_line),
    AfterValidator(_said),
]
"""The same, and not nothing."""
