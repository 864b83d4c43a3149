"""The keys of leases: derived, so that the same request is told the same key again, and no key is ever written.

Rules:
- A key is the HMAC-SHA-256 of its lease's id with a secret of this device, in a file of its own, 0600, made once.
- A key is checked by its SHA-256 in the journal: without the secret it still renews and releases; it only cannot be
  told again.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from pathlib import Path

from pydantic import SecretStr

from baserunner.identity import replace_durably
from baserunner.problems import LeaseRefused
from interfaces.world import World

log = logging.getLogger(__name__)

FILE = "lock-secret"
SIZE = 32


def sha256(text: str) -> str:
    """What the journal keeps of a key, and of the id of the request that it was told to."""
    return hashlib.sha256(text.encode()).hexdigest()


def fits(key: SecretStr, key_sha256: str) -> bool:
    return hmac.compare_digest(sha256(key.get_secret_value()), key_sha256)


class LockKeys:
    def __init__(self, home: Path, world: World) -> None:
        self._path = home / FILE
        self._world = world
        self._secret = b""

    def of(self, lock: str) -> SecretStr:
        """Raises LeaseRefused where the secret can be neither read nor made."""
        if not self._secret:
            try:
                self._secret = self._read() or self._make()
            except OSError as error:
                raise LeaseRefused(
                    "unavailable",
                    f"no key can be made: {self._path}: {error.strerror}; see to the data volume",
                ) from None
        return SecretStr(hmac.new(self._secret, lock.encode(), hashlib.sha256).hexdigest())

    def _read(self) -> bytes:
        """Empty: there is none, or what is there is none."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return b""
        try:
            found = os.read(descriptor, SIZE + 1)
        finally:
            os.close(descriptor)
        if len(found) == SIZE:
            return found
        log.warning(
            "%s holds %d bytes, not %d: another secret is made; keys that were told still count",
            self._path, len(found), SIZE,
        )  # fmt: skip
        return b""

    def _make(self) -> bytes:
        secret = self._world.random_bytes(SIZE)
        replace_durably(self._path, secret, lambda _: None)
        return secret
