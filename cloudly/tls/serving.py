"""The server's side of TLS: one live context, whose certificate is replaced in place before it ends.

Rules:
- A new certificate is loaded into the context that is served: new connections see it, open ones go on, no restart.
- The deployer's files are looked at too: who renews them (certbot) need not tell us.
- What cannot be renewed or is no good is said once, in the log, and the one that works goes on being served.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from cloudly.problems import CloudlyProblem
from cloudly.settings import Settings, TlsMode
from cloudly.tls import deployed
from cloudly.tls.authority import fingerprint_of
from cloudly.tls.kept import Kept
from interfaces.world import World

log = logging.getLogger("cloudly")

LOOK_EVERY_S = 60.0
SOON = timedelta(days=14)
"""A deployer's certificate that ends so soon is worth a line; half of it is left when a 30-day renewal has failed."""

Marks = tuple[tuple[int, int, int], ...]


class ServedTls:
    """A context and what keeps it fresh. `look` is cheap, and is to be called again and again."""

    def __init__(
        self,
        files: tuple[Path, ...],
        make: Callable[[], x509.Certificate],
        world: World,
        *,
        renews: bool,
    ) -> None:
        self._files = files
        self._make = make
        self._world = world
        self._renews = renews
        self._said = ""
        self.certificate = make()
        self._marks = self._marks_now()
        self.context: ssl.SSLContext = deployed.context_of(*files)
        self._looked_at = world.monotonic()

    def look(self) -> None:
        """Renew what is due and take what has changed. Never raises: what is served goes on being served."""
        now_s = self._world.monotonic()
        if now_s - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now_s
        try:
            self._freshen()
        except (CloudlyProblem, OSError) as problem:
            self._say(f"the certificate is not renewed: {problem}")

    def _freshen(self) -> None:
        marks = self._marks_now()
        if not self._renews and marks == self._marks:
            self._warn_of_its_end()
            return
        certificate = self._make()
        if certificate == self.certificate:
            return
        deployed.context_of(
            *self._files
        )  # what OpenSSL does not take must not half replace what it has
        deployed.load(self.context, *self._files)
        self.certificate, self._marks, self._said = certificate, self._marks_now(), ""
        log.info("a new certificate is served: %s", described(certificate))

    def _warn_of_its_end(self) -> None:
        left = self.certificate.not_valid_after_utc - self._world.now()
        if left < SOON:
            self._say(f"the certificate ends in {max(left.days, 0)} days: replace its file")

    def _say(self, what: str) -> None:
        if what != self._said:
            self._said = what
            log.error("%s", what)

    def _marks_now(self) -> Marks:
        stats = [file.stat() for file in self._files]
        return tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in stats)


def open_tls(settings: Settings, world: World) -> ServedTls | None:
    """What is served; None: Cloudly speaks plain HTTP. Raises CloudlyProblem, OSError."""
    host = host_of(settings.public_url)
    mode = settings.tls_mode
    if mode is TlsMode.OFF:
        return None
    if mode is TlsMode.FILES:
        pair = settings.tls_cert, settings.tls_key
        assert pair[0] is not None and pair[1] is not None  # noqa: S101, PT018 - `check_tls` saw to it
        certificate, key = pair[0], pair[1]
        return ServedTls(
            (certificate, key),
            lambda: deployed.check_pair(certificate, key, host=host, now=world.now()),
            world,
            renews=False,
        )
    assert host is not None  # noqa: S101 - `check_tls` saw to it
    kept = Kept.of(settings.data_dir)
    return ServedTls((kept.server_file,), lambda: kept.ready_for(host, world), world, renews=True)


def host_of(url: str | None) -> str | None:
    return None if url is None else urlsplit(url).hostname


def described(certificate: x509.Certificate) -> str:
    """One line for the log: until when, and which."""
    ends = certificate.not_valid_after_utc
    return f"valid until {ends:%Y-%m-%d}, SHA-256 {fingerprint_of(certificate)}"
