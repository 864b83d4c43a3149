"""The CA and the server certificate in the data directory: `tls/ca.key`, `tls/ca.crt`, `tls/server.pem`.

Rules:
- Keys are 0600 and never leave this folder. Only `ca.crt` is for others.
- One process changes them at a time; each file is whole at any time. A key is written before what it signed.
- Whoever loses `ca.key` needs a new CA, and every device its certificate: it belongs into the backup.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloudly.durable import write_durably
from cloudly.problems import BadOrder, BadSettings
from cloudly.tls import authority
from cloudly.tls.authority import Authority
from interfaces.world import World

FOLDER = "tls"
CA_KEY = "ca.key"
CA_CERTIFICATE = "ca.crt"
SERVER = "server.pem"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is in `tls/` of one data directory."""

    directory: Path

    @classmethod
    def of(cls, data_dir: Path) -> Kept:
        return cls(data_dir / FOLDER)

    @property
    def ca_file(self) -> Path:
        return self.directory / CA_CERTIFICATE

    @property
    def server_file(self) -> Path:
        return self.directory / SERVER

    def ca_certificate(self) -> x509.Certificate | None:
        """None when there is no CA. Raises BadSettings, OSError."""
        return _certificate(self.ca_file)

    def server_certificate(self) -> x509.Certificate | None:
        return _certificate(self.server_file)

    def make_ca(self, hosts: Sequence[str], world: World, *, replace: bool = False) -> Authority:
        """A new CA for these hosts. Raises BadOrder when there is one."""
        with self._alone():
            return self._make_ca(hosts, world, replace=replace)

    def _make_ca(self, hosts: Sequence[str], world: World, *, replace: bool = False) -> Authority:
        if not replace and self.ca_certificate() is not None:
            raise BadOrder(
                f"there is a CA in {self.directory}, and devices may trust it: `cloudly ca show`"
                " shows it, `cloudly ca renew` renews certificates; --replace makes another one,"
                " whose certificate every device needs then"
            )
        unfinished = None if replace else self._key()
        made = authority.make_authority(hosts, world, key=unfinished)
        write_durably(self.directory / CA_KEY, authority.pem_of_key(made.key))
        self._write_ca_certificate(made.certificate)
        (self.directory / SERVER).unlink(missing_ok=True)
        return made

    def renew_ca(self, world: World) -> Authority:
        """The CA's certificate again, with the same key and the same hosts. Raises BadOrder."""
        with self._alone():
            old = self.authority()
            hosts = authority.permitted(old.certificate)
            made = authority.make_authority(hosts, world, key=old.key)
            self._write_ca_certificate(made.certificate)
            return made

    def renew_server(self, host: str, world: World) -> x509.Certificate:
        """A new server certificate. Raises BadOrder."""
        with self._alone():
            return self._renew_server(self.authority(), host, world)

    def ready_for(self, host: str, world: World) -> x509.Certificate:
        """The server certificate for that host, made or renewed if need be, with the CA if need be. Raises BadOrder."""
        with self._alone():
            if self.ca_certificate() is None:
                self._make_ca([host], world)
            have, ca = self.server_certificate(), self.ca_certificate()
            assert ca is not None  # noqa: S101 - it was made three lines above
            fits = have is not None and authority.is_for(have, host) and authority.is_by(have, ca)
            if have is not None and fits and not authority.is_due(have, world.now()):
                return have
            return self._renew_server(self.authority(), host, world)

    def authority(self) -> Authority:
        """The CA with its key. Raises BadOrder when there is none or no longer its key."""
        certificate, key = self.ca_certificate(), self._key()
        if certificate is None:
            raise BadOrder(f"there is no CA in {self.directory}: `cloudly ca init` makes one")
        if key is None:
            raise BadOrder(
                f"{self.directory / CA_KEY} is missing: nothing can be signed. Restore it from a"
                " backup; or `cloudly ca init --replace`, and every device needs the new certificate"
            )
        if key.public_key() != certificate.public_key():
            raise BadOrder(
                f"{CA_KEY} and {CA_CERTIFICATE} in {self.directory} do not belong together:"
                " restore both from one backup"
            )
        return Authority(key, certificate)

    def _renew_server(self, ca: Authority, host: str, world: World) -> x509.Certificate:
        issued = authority.issue(ca, host, world)
        write_durably(self.server_file, issued.pem())
        return issued.certificate

    def _write_ca_certificate(self, certificate: x509.Certificate) -> None:
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        write_durably(self.ca_file, pem, mode=0o644)

    def _key(self) -> ec.EllipticCurvePrivateKey | None:
        try:
            pem = (self.directory / CA_KEY).read_bytes()
        except FileNotFoundError:
            return None
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise BadOrder(f"{self.directory / CA_KEY} is no key: restore it from a backup")
        return key

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:  # the CLI run by root beside a server that is not
            owner = self.directory.parent.stat()
            os.chown(self.directory, owner.st_uid, owner.st_gid)
        lock = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _certificate(path: Path) -> x509.Certificate | None:
    try:
        pem = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise BadSettings(
            f"{path} is no certificate: restore it from a backup; `cloudly ca renew` makes a server's"
        ) from None
