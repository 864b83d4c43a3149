"""What an image is configured for: this Cloudly's address, the CA to trust, and a join token.

Rules:
- Beside the database (its data directory is known) a token is looked up or made, and the CA is Cloudly's own.
- Away from it, on the laptop that writes the cards, address and CA are given, and a token is taken as it is.
- A token is read from a file or standard input, never from an argument: every process of the host sees those.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from cloudly.problems import BadOrder, BadSettings
from cloudly.settings import Settings, TlsMode
from cloudly.store import fleets, join_tokens
from cloudly.store.audit import By
from cloudly.store.store import Store
from cloudly.tls import deployed
from cloudly.tls.kept import Kept
from cloudly.tokens import new_join_token
from interfaces.world import World, now_ms

TOKEN = re.compile(r"[A-Za-z0-9_-]{20,200}")
FIRST_FLEET = 1


@dataclass(frozen=True, slots=True)
class Backend:
    """Where devices go."""

    url: str
    logs_url: str
    root_ca: bytes | None
    """PEM."""

    @property
    def certificate(self) -> x509.Certificate | None:
        return None if self.root_ca is None else x509.load_pem_x509_certificate(self.root_ca)


@dataclass(frozen=True, slots=True)
class Token:
    """A join token for the image; `id` None: whether it is one, only Cloudly knows."""

    text: str = field(repr=False)
    fleet: int = FIRST_FLEET
    id: int | None = None
    is_new: bool = False


def backend(
    settings: Settings,
    world: World,
    *,
    at_home: bool,
    root_ca: Path | None,
    logs_url: str | None = None,
) -> Backend:
    """Raises BadSettings."""
    url = settings.public_url
    if url is None:
        raise BadSettings(
            "CLOUDLY_PUBLIC_URL is not set: how do devices reach Cloudly? for example"
            " --public-url https://cloudly.example:8443"
        )
    trusted = _root_ca(settings, world, at_home=at_home, given=root_ca)
    return Backend(url, logs_url or url, trusted)


def check_logs(to: Backend) -> None:
    """Raises BadSettings for what no Supervisor survives (recorded: supervisor/README, trap 5)."""
    if not to.logs_url.startswith("https://"):
        raise BadSettings(
            "the logs endpoint must be https://: with an http:// one a balena Supervisor crashes at"
            " boot, again and again. Serve TLS (CLOUDLY_TLS), or give an https:// one beside an"
            " http:// Cloudly: --logs-endpoint https://logs.example"
        )


def _root_ca(
    settings: Settings, world: World, *, at_home: bool, given: Path | None
) -> bytes | None:
    file = given or settings.root_ca
    if file is not None:
        what = "--root-ca" if given else "CLOUDLY_ROOT_CA"
        found = deployed.root_ca_in(file, what, world.now())
    elif settings.tls_mode is TlsMode.SELF:
        own = Kept.of(settings.data_dir).ca_certificate() if at_home else None
        if own is None:
            raise BadSettings(
                "there is no CA yet to give to devices: `cloudly ca init` makes it, or give it:"
                " --root-ca FILE (`cloudly ca show --pem` on the server prints it)"
            )
        found = own
        deployed.check_dates(found, str(Kept.of(settings.data_dir).ca_file), world.now())
    else:
        return None
    return found.public_bytes(serialization.Encoding.PEM)


def read_token(file: Path) -> str:
    """From a file, or from standard input where it is `-`. Raises BadOrder, without what it read."""
    where = "standard input" if str(file) == "-" else str(file)
    try:
        raw = sys.stdin.readline() if str(file) == "-" else file.read_text("ascii")
    except OSError as error:
        raise BadOrder(f"no join token from {where}: {error.strerror}") from None
    except ValueError:
        raise BadOrder(f"no join token from {where}: it is no plain text") from None
    if TOKEN.fullmatch(raw.strip()) is None:
        raise BadOrder(f"what {where} holds is no join token; `cloudly token create` makes one")
    return raw.strip()


def known_token(store: Store, text: str, world: World) -> Token:
    """A token that can still enroll somebody. Raises BadOrder."""
    row = store.read_now(lambda db: join_tokens.find(db, text))
    if row is None:
        raise BadOrder("this Cloudly does not know that join token: `cloudly token list`")
    if why := unusable(dict(row), now_ms(world)):
        raise BadOrder(f"join token {row['id']} {why}: `cloudly token create` makes a fresh one")
    return Token(text, int(row["fleet"]), int(row["id"]))


def trouble(store: Store, text: str, world: World) -> str:
    """Why a token that stands in an image admits nobody; empty: it does."""
    row = store.read_now(lambda db: join_tokens.find(db, text))
    return "not one of this Cloudly's" if row is None else unusable(dict(row), now_ms(world))


def unusable(row: dict[str, object], at_ms: int) -> str:
    """Why it admits no new node; empty: it does."""
    expires = row["expires_at_ms"]
    if row["revoked_at_ms"] is not None:
        return "was revoked"
    if not row["uses_left"]:
        return "is used up"
    return "has expired" if isinstance(expires, int) and expires <= at_ms else ""


@dataclass(frozen=True, slots=True)
class Fresh:
    """A join token to be made."""

    name: str = ""
    uses: int = 1
    lasts_s: int = 0
    """0: for ever."""
    fleet: str = "default"


def make_token(store: Store, world: World, fresh: Fresh, by: By) -> Token:
    """Raises BadOrder when there is no such fleet."""
    now, text = by.at_ms, new_join_token(world)
    ends = now + fresh.lasts_s * 1000 if fresh.lasts_s else None
    into = int(store.read_now(lambda db: fleets.find(db, fresh.fleet))["id"])
    new = join_tokens.NewToken(text, fresh.name, fresh.uses, now, ends, into)
    made = store.write_now(lambda db: join_tokens.create(db, new, by=by))
    return Token(text, into, made, is_new=True)
