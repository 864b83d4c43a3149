"""A certificate authority for one Cloudly, and the server certificates that it issues. Pure, but for drawing keys.

Rules:
- It may speak for the named hosts and nothing else: its certificate goes into the trust store of whole devices, and
  whoever steals its key must not be able to be the rest of the internet for them. DNS names permit what is below them.
- Nothing begins later than 1970: a device without a clock battery boots then, and asks Cloudly for the time by TLS.
  The beginning of a certificate protects nothing here; its end does.
- A server certificate is short-lived and is renewed by itself. The CA outlives devices, and its certificate can be
  made again with the same key: devices that have the older one go on.

Source: RFC 5280 sections 4.2.1.9 and 4.2.1.10; OpenSSL's strict checks (X509_V_FLAG_X509_STRICT) want the key ids.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudly.problems import BadOrder
from interfaces.world import World

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
CA_LASTS = timedelta(days=20 * 365)
"""Until 2046 or so: before 2050, from which on the date has another encoding that few clients have ever met."""
SERVER_LASTS = timedelta(days=90)
RENEW_BEFORE = timedelta(days=30)
"""A third of its life is left to notice that renewing fails."""
PLAUSIBLE_FROM = datetime(2026, 1, 1, tzinfo=UTC)
NOBODY = "baseos.invalid"
"""RFC 2606: nobody has it. To permit one name only is to permit no other, but a kind without any entry is free."""
SERVER_NAME = "Cloudly server"
"""Not the host: where that is an address, OpenSSL holds it against the permitted DNS names."""
ALL_ADDRESSES = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True, slots=True)
class Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class Issued:
    """A server's key and certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def pem(self) -> bytes:
        """Key and certificate in one text, so that no crash leaves a pair that does not match."""
        return pem_of_key(self.key) + self.certificate.public_bytes(serialization.Encoding.PEM)


def new_key() -> ec.EllipticCurvePrivateKey:
    """P-256: every TLS library that a device may have knows it."""
    return ec.generate_private_key(ec.SECP256R1())


def pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def make_authority(
    hosts: Sequence[str], world: World, *, key: ec.EllipticCurvePrivateKey | None = None
) -> Authority:
    """A CA for these hosts (names or addresses), with a new key or with the one that it had. Raises BadOrder."""
    key = key or new_key()
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Cloudly"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Cloudly CA of {hosts[0]}"[:64]),
        ]
    )
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(_serial(world))
        .not_valid_before(BEGINNING)
        .not_valid_after(_now(world) + CA_LASTS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(_constraints(hosts), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )
    return Authority(key, builder.sign(key, hashes.SHA256()))


def issue(authority: Authority, host: str, world: World) -> Issued:
    """A certificate for that host, with a key of its own. Raises BadOrder when the CA may not speak for it."""
    if not may_speak_for(authority.certificate, host):
        raise BadOrder(
            f"the CA may not speak for {host}: it may for {', '.join(permitted(authority.certificate))}."
            " Use one of these in CLOUDLY_PUBLIC_URL, or make a CA for the new host"
            " (`cloudly ca init --replace`) and give its certificate to every device"
        )
    ends = authority.certificate.not_valid_after_utc
    if ends <= _now(world):
        raise BadOrder(
            f"the CA ended at {ends:%Y-%m-%d}: `cloudly ca renew --ca` makes its certificate again;"
            " every device needs the new one"
        )
    return _signed(authority, host, world)


def _signed(authority: Authority, host: str, world: World) -> Issued:
    key, ends = new_key(), authority.certificate.not_valid_after_utc
    signer = x509.SubjectKeyIdentifier.from_public_key(authority.key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(_serial(world))
        .not_valid_before(BEGINNING)
        .not_valid_after(min(_now(world) + SERVER_LASTS, ends))
        .add_extension(x509.SubjectAlternativeName([_general(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer), critical=False
        )
    )
    return Issued(key, builder.sign(authority.key, hashes.SHA256()))


def is_due(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether it is time for the next one."""
    return certificate.not_valid_after_utc - now < RENEW_BEFORE


def is_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether that CA, or an earlier certificate of the same CA, issued it."""
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001 - a wrong name, a wrong signature, a key of another kind: all are no
        return False
    return True


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """What a server certificate is for: DNS names and addresses."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(one) for one in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def is_for(certificate: x509.Certificate, host: str) -> bool:
    """Whether a client that wants this host takes it. A wildcard stands for one label. RFC 6125 section 6.4.3."""
    wanted = host.lower().rstrip(".")
    for name in hosts_of(certificate):
        named = name.lower().rstrip(".")
        if named == wanted:
            return True
        if named.startswith("*.") and not _address(wanted):
            first, _, rest = wanted.partition(".")
            if first and rest == named[2:]:
                return True
    return False


def permitted(certificate: x509.Certificate) -> list[str]:
    """The hosts that a CA may speak for; empty: all of them."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return []
    values = [str(one.value) for one in found.permitted_subtrees or []]
    return [value.removesuffix("/32").removesuffix("/128") for value in values if value != NOBODY]


def may_speak_for(certificate: x509.Certificate, host: str) -> bool:
    hosts = permitted(certificate)
    if not hosts:
        return True
    wanted = host.lower().rstrip(".")
    if (address := _address(wanted)) is not None:
        return str(address) in hosts
    return any(wanted == name or wanted.endswith("." + name) for name in hosts)


def is_host(text: str) -> bool:
    """A DNS name in lower case, or an address."""
    if _address(text) is not None:
        return True
    labels = text.split(".")
    return len(text) <= 253 and all(
        0 < len(label) <= 63
        and label.isascii()
        and label.replace("-", "").replace("_", "").isalnum()
        and label == label.lower()
        and label.strip("-") == label
        for label in labels
    )


def fingerprint_of(certificate: x509.Certificate) -> str:
    """SHA-256 as people compare it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _constraints(hosts: Sequence[str]) -> x509.NameConstraints:
    names = [host for host in hosts if _address(host) is None]
    addresses = [ipaddress.ip_network(one) for one in map(_address, hosts) if one is not None]
    allowed: list[x509.GeneralName] = [x509.DNSName(name) for name in names or [NOBODY]]
    allowed += [x509.IPAddress(address) for address in addresses]
    if addresses:
        return x509.NameConstraints(allowed, None)
    every = [x509.IPAddress(ipaddress.ip_network(one)) for one in ALL_ADDRESSES]
    return x509.NameConstraints(allowed, every)


def _general(host: str) -> x509.GeneralName:
    address = _address(host)
    return x509.DNSName(host) if address is None else x509.IPAddress(address)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _serial(world: World) -> int:
    """159 bits: RFC 5280 wants at most 20 octets, and a positive number."""
    return int.from_bytes(world.random_bytes(20), "big") >> 1 or 1


def _now(world: World) -> datetime:
    now = world.now()
    if now < PLAUSIBLE_FROM:
        raise BadOrder(
            f"the clock of this machine says {now:%Y-%m-%d}: a certificate made now would have ended"
            " before devices see it; set the clock first"
        )
    return now.replace(microsecond=0)
