"""The node's identity: node id, enrollment secret, node tokens, in `state.json`, and nowhere else.

Rules:
- Mode 0600; written as a temporary file, fsync, rename, fsync of the directory. Without the last step 115 of 216
  simulated power cuts lost the file (measured in the reliability note).
- Nothing of its contents is in any error: a torn file is reported by its length and the place of the fault.
- Damaged is what can be read and is no identity. What cannot be read (a wrong owner, a bad sector) may be good still.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, field_serializer

from baserunner.problems import IdentityDamaged, IdentityProblem

log = logging.getLogger(__name__)

FILE = "state.json"
MAX_BYTES = 65_536


class SpareToken(BaseModel):
    """A node token that is not in use."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    token: SecretStr
    generation: int

    @field_serializer("token", when_used="json")
    def _reveal(self, secret: SecretStr) -> str:
        return secret.get_secret_value()


class Identity(BaseModel):
    """Who this node is. `enrollment` names the journal stream that this secret was drawn for."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    node_id: str
    enrollment: str
    enrollment_secret: SecretStr
    node_token: SecretStr | None = None
    token_generation: int = 0
    next_token: SecretStr | None = None
    """Drawn to follow; Cloudly may know its hash."""
    next_generation: int = 0
    former_tokens: tuple[SpareToken, ...] = ()
    """In use before, the last one first."""

    @property
    def spares(self) -> tuple[SpareToken, ...]:
        """What may be tried when the one in use is refused, the likeliest first."""
        if self.next_token is None:
            return self.former_tokens
        following = SpareToken(token=self.next_token, generation=self.next_generation)
        return (following, *self.former_tokens)

    @property
    def secrets(self) -> tuple[str, ...]:
        """All that the log must not show."""
        tokens = (self.enrollment_secret, self.node_token, *(one.token for one in self.spares))
        return tuple(one.get_secret_value() for one in tokens if one is not None)

    @field_serializer("enrollment_secret", "node_token", "next_token", when_used="json")
    def _reveal(self, secret: SecretStr | None) -> str | None:
        return None if secret is None else secret.get_secret_value()


def read_identity(home: Path) -> Identity | None:
    """The identity on disk; None if there has never been one. Raises IdentityProblem, without the contents."""
    path = home / FILE
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IdentityProblem(f"cannot read {path}: {error.strerror}") from None
    try:
        return Identity.model_validate_json(raw)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['type']}"
            for e in error.errors(include_input=False, include_url=False, include_context=False)
        )
        raise IdentityDamaged(f"{path} ({len(raw)} bytes) is damaged: {faults}") from None


def keep_private(home: Path) -> None:
    """Take it away from everybody else, if a hand or a restore gave it to them. Best effort: it may be missing."""
    path = home / FILE
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode != 0o600:
            path.chmod(0o600)
            log.warning("%s had mode %o, it has 600 again: others may have read it", path, mode)
    except OSError:
        return


def write_identity(
    home: Path, identity: Identity, *, points: Callable[[str], None] = lambda _: None
) -> None:
    """Make it durable: when this returns, a power cut cannot take it back. Raises IdentityProblem."""
    try:
        replace_durably(home / FILE, identity.model_dump_json().encode(), points)
    except OSError as error:
        raise IdentityProblem(f"cannot write {home / FILE}: {error.strerror}") from None


def set_aside(home: Path) -> Path:
    """Move a damaged state.json out of the way, kept for whoever looks into it. Returns its new place."""
    aside = home / f"{FILE}.damaged"
    try:
        (home / FILE).replace(aside)
        _fsync_directory(home)
    except OSError as error:
        raise IdentityProblem(f"cannot move {home / FILE} aside: {error.strerror}") from None
    return aside


def sha256(token: SecretStr) -> str:
    """What Cloudly keeps of a node token, in hex."""
    return hashlib.sha256(token.get_secret_value().encode()).hexdigest()


def fingerprint(token: SecretStr) -> str:
    """Which token it is, without the token: the first 12 hex digits of its SHA-256."""
    return sha256(token)[:12]


def replace_durably(path: Path, content: bytes, points: Callable[[str], None]) -> None:
    """A private file, whole or not at all, also after a power cut. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    points("identity:written")
    temporary.replace(path)
    points("identity:renamed")
    _fsync_directory(path.parent)


def _fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
