"""The deployer's certificate: read and checked before anybody meets it.

Rules:
- Readable, a pair, not over yet, and for the host of the public URL: what a device would trip over is an error here.
- The key is in no message.
"""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from cloudly.problems import BadSettings
from cloudly.tls import authority


def check_pair(
    certificate_file: Path, key_file: Path, *, host: str | None, now: datetime
) -> x509.Certificate:
    """The server's certificate, the first in its file. Raises BadSettings."""
    chain = certificates_in(certificate_file, "CLOUDLY_TLS_CERT")
    key = _key_in(key_file)
    first = chain[0]
    if key.public_key() != first.public_key():
        raise BadSettings(
            f"CLOUDLY_TLS_KEY ({key_file}) is not the key of CLOUDLY_TLS_CERT ({certificate_file}):"
            " the server's own certificate must be the first in its file"
        )
    check_dates(first, str(certificate_file), now)
    if host is not None and not authority.is_for(first, host):
        named = ", ".join(authority.hosts_of(first)) or "no host"
        raise BadSettings(
            f"CLOUDLY_TLS_CERT ({certificate_file}) is for {named}, and CLOUDLY_PUBLIC_URL says"
            f" {host}: no device would accept it"
        )
    return first


def check_dates(certificate: x509.Certificate, where: str, now: datetime) -> None:
    """Raises BadSettings when it has ended or not begun."""
    ends, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if ends <= now:
        raise BadSettings(f"the certificate in {where} ended at {ends:%Y-%m-%d %H:%M} UTC")
    if begins > now:
        raise BadSettings(
            f"the certificate in {where} begins at {begins:%Y-%m-%d %H:%M} UTC only:"
            " is the clock of this machine right?"
        )


def certificates_in(file: Path, what: str) -> list[x509.Certificate]:
    """At least one. Raises BadSettings."""
    try:
        return x509.load_pem_x509_certificates(_read(file, what))
    except ValueError:
        raise BadSettings(f"{what} ({file}) holds no PEM certificate") from None


def root_ca_in(file: Path, what: str, now: datetime) -> x509.Certificate:
    """The one CA certificate of that file, fit for a device's trust store. Raises BadSettings."""
    found = certificates_in(file, what)
    if len(found) != 1:
        raise BadSettings(
            f"{what} ({file}) holds {len(found)} certificates: a device takes one, the root"
        )
    try:
        constraints = found[0].extensions.get_extension_for_class(x509.BasicConstraints).value
        is_ca = constraints.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        raise BadSettings(
            f"{what} ({file}) is a server's certificate and no CA's: give the root of its chain"
        )
    check_dates(found[0], f"{what} ({file})", now)
    return found[0]


def context_of(certificate_file: Path, key_file: Path | None = None) -> ssl.SSLContext:
    """A server's. Raises BadSettings when OpenSSL does not take the pair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load(context, certificate_file, key_file)
    return context


def load(context: ssl.SSLContext, certificate_file: Path, key_file: Path | None = None) -> None:
    """From now on new connections see this certificate; those that are open go on. Raises BadSettings."""
    try:
        context.load_cert_chain(certificate_file, key_file, password=_no_password)
    except (ssl.SSLError, ValueError) as problem:
        reason = getattr(problem, "reason", None) or type(problem).__name__
        raise BadSettings(f"{certificate_file} cannot be served: {reason}") from None


def _no_password() -> str:
    raise ValueError("a key with a passphrase")


def _key_in(file: Path) -> PrivateKeyTypes:
    pem = _read(file, "CLOUDLY_TLS_KEY")
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise BadSettings(
            f"CLOUDLY_TLS_KEY ({file}) has a passphrase, and nobody is there to type it: take it"
            " off (`openssl pkey`), with mode 0600"
        ) from None
    except ValueError:
        raise BadSettings(f"CLOUDLY_TLS_KEY ({file}) holds no PEM private key") from None


def _read(file: Path, what: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadSettings(f"{what} ({file}) cannot be read: {error.strerror}") from None
