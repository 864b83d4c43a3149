"""The keys that all servers of one Cloudly must have alike, though they lie in their data directories.

Rules:
- Where servers share a database, a fingerprint of each key and where it lies are kept in `meta`, at first use. A
  server with another key would give devices tickets, registry tokens or certificates that the next server refuses: it
  does not start, and says which files to copy from where.
- A key is never in the database, and never in a message.
- Who replaces a key on purpose (`cloudly registry rotate-key`, `cloudly ca init`) or says which ones are right
  (`cloudly servers accept-keys`) puts the new fingerprint there.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from cloudly import tickets
from cloudly.balena import registry_keys
from cloudly.problems import BadSettings, KeysDiffer
from cloudly.settings import Settings, TlsMode
from cloudly.store import audit
from cloudly.store.audit import By
from cloudly.store.sql import Connection
from cloudly.store.store import Store
from cloudly.tls.kept import CA_CERTIFICATE, CA_KEY, Kept
from cloudly.tls.kept import FOLDER as TLS_FOLDER
from interfaces.world import World

ROW = "key/{}"
MISSING = "{file} is missing, and other servers of this Cloudly have one: {remedy}"
OTHER = "{file} is not the key that other servers of this Cloudly have: {remedy}"
REMEDY = (
    "copy {files} from {where} into {directory}. Only if that key is lost, or this one is to be the right one:"
    " `cloudly servers accept-keys`, then copy it to the other servers"
)


@dataclass(frozen=True, slots=True)
class Key:
    """One that servers have in common."""

    name: str
    directory: Path
    files: tuple[str, ...]
    """Below the directory; the first one is the key."""
    fingerprint: Callable[[], str]
    """Of the key, which is made if there is none. Raises StoreProblem, BadOrder, OSError."""

    @property
    def file(self) -> Path:
        return self.directory / self.files[0]


@dataclass(frozen=True, slots=True)
class Known:
    """What the database says of a key."""

    fingerprint: str
    host: str
    directory: str

    @property
    def where(self) -> str:
        return f"{self.host}:{self.directory}"


def of(settings: Settings, world: World) -> list[Key]:
    """The keys that a server with these settings uses."""
    used = {
        "ticket": True,
        "registry": settings.registry_service is not None,
        "ca": settings.tls_mode is TlsMode.SELF,
    }
    return [key for key in _all(settings, world) if used[key.name]]


def _all(settings: Settings, world: World) -> list[Key]:
    at = settings.data_dir
    registry = (
        f"{registry_keys.FOLDER}/{name}" for name in (registry_keys.KEYS, registry_keys.BUNDLE)
    )
    ca = (f"{TLS_FOLDER}/{name}" for name in (CA_KEY, CA_CERTIFICATE))
    return [
        Key("ticket", at, (tickets.FILE,), lambda: _ticket(at, world)),
        Key("registry", at, tuple(registry), lambda: _registry(at, world)),
        Key("ca", at, tuple(ca), lambda: _ca(settings, world)),
    ]


def check(store: Store, keys: Iterable[Key]) -> None:
    """That they are what the other servers have; the first one says what they are. Raises KeysDiffer."""
    if not store.is_shared:
        return
    for key in keys:
        known = store.read_now(lambda db, key=key: _known(db, key))  # type: ignore[misc]
        if known is not None and not key.file.exists():
            raise KeysDiffer(_sentence(MISSING, key, known))
        mine = _mine(key)
        first = store.write_now(lambda db, key=key, mine=mine: _first(db, key, mine))  # type: ignore[misc]
        if first.fingerprint != mine.fingerprint:
            raise KeysDiffer(_sentence(OTHER, key, first))


def accept(store: Store, keys: Iterable[Key], *, by: By | None = None) -> None:
    """From now on these are the keys of all servers; where there is one server, they are anyway."""
    if store.is_shared:
        _accept(store, keys, by, "key.accepted")


def _accept(store: Store, keys: Iterable[Key], by: By | None, act: str) -> None:
    mine = [(key, _mine(key)) for key in keys]

    def write(db: Connection) -> None:
        for key, known in mine:
            audit.note(db, by, act, f"key/{key.name}")
            if not store.is_shared:
                continue
            db.execute(
                "INSERT INTO meta VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value",
                (ROW.format(key.name), _text(known)),
            )

    store.write_now(write)


@contextmanager
def replacing(
    settings: Settings, world: World, name: str, *, at_once: bool, by: By | None = None
) -> Iterator[None]:
    """A command replaces that key in the block, and from then on it is the one of all servers.

    `at_once`: whatever the others have; otherwise the one that is replaced must be theirs. Raises KeysDiffer.
    """
    store = Store.open(settings.data_dir, world, serves=False, database_url=settings.database)
    try:
        keys = [key for key in _all(settings, world) if key.name == name]
        if not at_once:
            check(store, keys)
        yield
        _accept(store, keys, by, "key.replaced")
    finally:
        store.close()


def _known(db: Connection, key: Key) -> Known | None:
    row = db.execute("SELECT value FROM meta WHERE key=?", (ROW.format(key.name),)).fetchone()
    return None if row is None else Known(**json.loads(row[0]))


def _first(db: Connection, key: Key, mine: Known) -> Known:
    """What is known, which is ours where nothing was."""
    db.execute(
        "INSERT INTO meta VALUES(?,?) ON CONFLICT DO NOTHING", (ROW.format(key.name), _text(mine))
    )
    known = _known(db, key)
    assert known is not None  # noqa: S101 - it was just written
    return known


def _mine(key: Key) -> Known:
    return Known(key.fingerprint(), socket.gethostname(), str(key.directory.absolute()))


def _text(known: Known) -> str:
    return json.dumps(
        {
            "fingerprint": known.fingerprint,
            "host": known.host,
            "directory": known.directory,
        }
    )


def _sentence(words: str, key: Key, known: Known) -> str:
    remedy = REMEDY.format(
        files=" and ".join(key.files), where=known.where, directory=key.directory
    )
    return words.format(file=key.file, remedy=remedy)


# -- what identifies a key and tells nothing of it


def _ticket(at: Path, world: World) -> str:
    key = tickets.Tickets(at, world).key()
    return hashlib.sha256(b"cloudly/ticket.key/1/" + key).hexdigest()


def _registry(at: Path, world: World) -> str:
    keys = registry_keys.open_keys(at, world)
    public = keys.signing.certificate + keys.following.certificate
    return hashlib.sha256(public.encode()).hexdigest()


def _ca(settings: Settings, world: World) -> str:
    from cloudly.tls.serving import host_of

    kept, host = Kept.of(settings.data_dir), host_of(settings.public_url)
    if host is None:
        raise BadSettings("CLOUDLY_PUBLIC_URL is not set: the certificate is made for its host")
    kept.ready_for(host, world)
    public = kept.authority().key.public_key()
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()
