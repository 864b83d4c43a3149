"""The keys that sign registry tokens: made on first use, kept in the data directory, turned without a pause.

Rules:
- A registry reads its bundle of certificates when it starts. So the certificate of the NEXT key is in the bundle long
  before that key signs: after `turn` tokens are good at once, and the registry may be restarted at leisure.
- Of a former key only the certificate stays, until its last token has ended.
- `keys.json` (0600) is the truth, one file, so that a power cut leaves the old or the new; `token.crt` comes from it.
- A token carries its certificate (`x5c`): distribution 2.8 and 3.x both look for that first, and mean different things
  by `kid`.
"""

from __future__ import annotations

import base64
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from cloudly.durable import fsync_directory, write_durably
from cloudly.problems import StoreUnavailable
from interfaces.world import World, now_ms

log = logging.getLogger("cloudly")

FOLDER = "registry"
KEYS = "keys.json"
BUNDLE = "token.crt"

TOKEN_S = 300
"""How long a token is good: long enough for the clients' usual minute and more, short for one whose target changed."""
LEEWAY_S = 60  # distribution's own, at both ends of a token's time
KEPT_MS = (TOKEN_S + 2 * LEEWAY_S) * 1000
CERTIFICATE_LASTS = timedelta(days=3650)
BACKDATED = timedelta(days=1)  # for a registry whose clock is behind
ALGORITHM = "ES256"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256

NO_KEYS = "{} holds no registry keys: restore it, or make new ones with `cloudly registry rotate-key --at-once`"


class KeptKey(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    key: SecretStr
    """PKCS 8, PEM."""
    certificate: str
    """PEM, self-signed."""


class Former(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    certificate: str
    until_ms: int
    """By then its last token has ended."""


class Keys(BaseModel):
    """All keys of a Cloudly, as they are on disk."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    signing: KeptKey
    following: KeptKey
    former: tuple[Former, ...] = ()

    def bundle(self, at_ms: int) -> str:
        """The certificates that a registry should trust now."""
        former = [one.certificate for one in self.former if one.until_ms > at_ms]
        return "".join([self.signing.certificate, self.following.certificate, *former])


class Signer:
    """Signs with the present key; notices by itself when another process has turned it."""

    def __init__(self, data_dir: Path, world: World) -> None:
        self._data_dir = data_dir
        self._world = world
        self._seen: tuple[int, ...] = ()

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A JWT with these claims. Raises StoreUnavailable when there is no key to be had."""
        seen = _looks(self._data_dir / FOLDER / KEYS)
        if seen != self._seen or not seen:
            self._take(open_keys(self._data_dir, self._world).signing)
            self._seen = seen
        return jwt.encode(dict(self._header), dict(claims), self._key, algorithms=[ALGORITHM])

    def _take(self, signing: KeptKey) -> None:
        try:
            key = ECKey.import_key(signing.key.get_secret_value())
            x5c = _x5c(signing.certificate)
        except ValueError:
            raise StoreUnavailable(NO_KEYS.format(self._data_dir / FOLDER / KEYS)) from None
        self._key, self._header = key, {"alg": ALGORITHM, "typ": "JWT", "x5c": [x5c]}


def open_keys(data_dir: Path, world: World) -> Keys:
    """The keys of that data directory, made if there are none. Raises StoreUnavailable."""
    with _alone(data_dir):
        return _read(data_dir) or _make(data_dir, world)


def turn(data_dir: Path, world: World, *, at_once: bool = False) -> Keys:
    """The following key signs from now on. `at_once`: a key has leaked, so nothing of before is trusted any more.

    Raises StoreUnavailable; then the keys are as they were.
    """
    with _alone(data_dir):
        before = None if at_once else _read(data_dir)
        if before is None:
            return _make(data_dir, world)
        now = now_ms(world)
        ended = Former(certificate=before.signing.certificate, until_ms=now + KEPT_MS)
        former = [one for one in before.former if one.until_ms > now]
        keys = Keys(signing=before.following, following=_new_key(world), former=(*former, ended))
        _write(data_dir, keys, now)
        return keys


def _make(data_dir: Path, world: World) -> Keys:
    keys = Keys(signing=_new_key(world), following=_new_key(world))
    _write(data_dir, keys, now_ms(world))
    log.warning("new keys for registry tokens were made: the registry needs their certificates")
    return keys


def _write(data_dir: Path, keys: Keys, at_ms: int) -> None:
    document = {
        "signing": _plain(keys.signing),
        "following": _plain(keys.following),
        "former": [one.model_dump() for one in keys.former],
    }
    folder = data_dir / FOLDER
    write_durably(folder / BUNDLE, keys.bundle(at_ms).encode(), mode=0o644)
    write_durably(folder / KEYS, json.dumps(document, indent=1).encode() + b"\n")


def _plain(kept: KeptKey) -> dict[str, str]:
    return {"key": kept.key.get_secret_value(), "certificate": kept.certificate}


def _read(data_dir: Path) -> Keys | None:
    file = data_dir / FOLDER / KEYS
    try:
        return Keys.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise StoreUnavailable(NO_KEYS.format(file)) from None


def _new_key(world: World) -> KeptKey:
    number = int.from_bytes(world.random_bytes(40), "big") % (ORDER - 1) + 1  # FIPS 186-5 A.2.1
    key = ec.derive_private_key(number, ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    certificate = _certificate(key, world).public_bytes(serialization.Encoding.PEM)
    return KeptKey(key=SecretStr(pem.decode()), certificate=certificate.decode())


def _certificate(key: ec.EllipticCurvePrivateKey, world: World) -> x509.Certificate:
    """Of this key alone: it may sign no other certificate."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Cloudly registry tokens")])
    now = world.now()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(world.random_bytes(16), "big") + 1)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + CERTIFICATE_LASTS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


def _x5c(certificate: str) -> str:
    der = x509.load_pem_x509_certificate(certificate.encode()).public_bytes(
        serialization.Encoding.DER
    )
    return base64.b64encode(der).decode()


def _looks(file: Path) -> tuple[int, ...]:
    """What differs when the file was replaced; empty when there is none."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Only one process at a time makes or turns keys; whatever the disk does is one problem."""
    folder = data_dir / FOLDER
    try:
        if not folder.is_dir():
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            fsync_directory(data_dir)
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        if os.geteuid() == 0:  # the CLI run by root beside a server that is not
            owner = data_dir.stat()
            os.chown(folder, owner.st_uid, owner.st_gid)
            os.fchown(lock, owner.st_uid, owner.st_gid)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
    except OSError as problem:
        raise StoreUnavailable(
            f"the registry keys in {folder} could not be read or written: {problem.strerror}"
        ) from problem
