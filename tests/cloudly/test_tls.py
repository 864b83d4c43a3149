"""A CA of Cloudly's own and the certificates that it issues: what OpenSSL makes of them, and what is kept of them."""

from __future__ import annotations

import os
import resource
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from cloudly.problems import BadOrder, BadSettings
from cloudly.settings import Settings, TlsMode, check_tls, from_environment
from cloudly.tls import authority, deployed
from cloudly.tls.kept import Kept
from cloudly.tls.serving import ServedTls, open_tls
from simulators.world import MORNING, SimWorld

HOST = "cloudly.example"


def world(at: datetime = MORNING) -> SimWorld:
    return SimWorld(7, wall=at)


def verdict(directory: Path, server: bytes, *, at: datetime, host: str = HOST) -> str:
    """What `openssl verify`, at its strictest, says of a server certificate; a second opinion beside Python's."""
    leaf = directory / "leaf.pem"
    leaf.write_bytes(server)
    is_name = host.endswith("example")
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-purpose", "sslserver",
         "-verify_hostname" if is_name else "-verify_ip", host,
         "-attime", str(int(at.timestamp())), "-CAfile", str(directory / "ca.crt"), str(leaf)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "OK" if done.returncode == 0 else done.stderr


@pytest.mark.parametrize("host", [HOST, "192.0.2.7", "2001:db8::7"])
@pytest.mark.parametrize(
    "at",
    [
        datetime(1970, 1, 1, 0, 1, tzinfo=UTC),
        datetime(2019, 5, 1, tzinfo=UTC),
        MORNING,
        MORNING + timedelta(days=89),
    ],
    ids=["a device that has just booted in 1970", "an old image", "now", "just before its end"],
)
def test_a_device_accepts_it_whatever_its_clock_says_as_long_as_it_is_not_late(
    tmp_path: Path, host: str, at: datetime
) -> None:
    kept = Kept(tmp_path)

    kept.ready_for(host, world())

    assert verdict(tmp_path, kept.server_file.read_bytes(), at=at, host=host) == "OK"


def test_after_its_end_nobody_accepts_it(tmp_path: Path) -> None:
    kept = Kept(tmp_path)

    kept.ready_for(HOST, world())

    late = MORNING + timedelta(days=91)
    assert "expired" in verdict(tmp_path, kept.server_file.read_bytes(), at=late)


@pytest.mark.parametrize(
    ("permitted", "forged"),
    [
        (HOST, "bank.example"),
        (HOST, "192.0.2.7"),
        ("192.0.2.7", "192.0.2.8"),
        ("192.0.2.7", "bank.example"),
    ],
)
def test_with_its_stolen_key_nobody_can_be_another_host_for_a_device(
    tmp_path: Path, permitted: str, forged: str
) -> None:
    kept = Kept(tmp_path)
    ca = kept.make_ca([permitted], world())
    with pytest.raises(BadOrder, match="may not speak for"):
        authority.issue(ca, forged, world())

    stolen = authority._signed(ca, forged, world())

    said = verdict(tmp_path, stolen.pem(), at=MORNING, host=forged)
    assert "subtree violation" in said


def test_it_signs_no_further_ca(tmp_path: Path) -> None:
    kept = Kept(tmp_path)

    constraints = kept.make_ca([HOST], world()).certificate.extensions.get_extension_for_class(
        x509.BasicConstraints
    )

    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (
        True,
        True,
        0,
    )


def test_keys_are_for_their_owner_alone_and_nothing_half_written_stays(tmp_path: Path) -> None:
    kept = Kept.of(tmp_path)

    kept.ready_for(HOST, world())

    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in kept.directory.iterdir()}
    assert modes == {"ca.key": 0o600, "server.pem": 0o600, "ca.crt": 0o644}
    assert stat.S_IMODE(kept.directory.stat().st_mode) == 0o700


def test_it_is_renewed_when_a_third_of_its_life_is_left_and_not_before(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    first = kept.ready_for(HOST, world())

    early = kept.ready_for(HOST, world(MORNING + timedelta(days=59)))
    due = kept.ready_for(HOST, world(MORNING + timedelta(days=61)))

    assert early == first
    assert due.not_valid_after_utc - first.not_valid_after_utc == timedelta(days=61)
    at = MORNING + timedelta(days=120)
    assert verdict(tmp_path, kept.server_file.read_bytes(), at=at) == "OK"


def test_another_host_of_the_same_ca_gets_a_certificate_and_a_foreign_one_is_refused(
    tmp_path: Path,
) -> None:
    kept = Kept(tmp_path)
    kept.make_ca([HOST, "192.0.2.7"], world())

    below = kept.ready_for(f"eu.{HOST}", world())
    address = kept.ready_for("192.0.2.7", world())

    assert authority.hosts_of(below) == [f"eu.{HOST}"]
    assert authority.hosts_of(address) == ["192.0.2.7"]
    with pytest.raises(BadOrder, match="the CA may not speak for evilcloudly"):
        kept.ready_for("evilcloudly.example", world())
    assert kept.server_certificate() == address


def test_a_ca_whose_certificate_was_made_again_is_the_same_ca_to_devices_that_have_the_older(
    tmp_path: Path,
) -> None:
    kept = Kept(tmp_path)
    old = kept.make_ca([HOST], world()).certificate
    late = MORNING + timedelta(days=19 * 365)

    new = kept.renew_ca(world(late)).certificate
    issued = kept.renew_server(HOST, world(late))

    assert new.not_valid_after_utc > old.not_valid_after_utc
    assert authority.permitted(new) == [HOST]
    assert authority.is_by(issued, old)
    (tmp_path / "ca.crt").write_bytes(old.public_bytes(serialization.Encoding.PEM))
    assert verdict(tmp_path, kept.server_file.read_bytes(), at=late) == "OK"


def test_a_certificate_never_outlives_its_ca_and_a_dead_ca_says_what_to_do(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    ca = kept.make_ca([HOST], world()).certificate
    shortly_before = ca.not_valid_after_utc - timedelta(days=10)

    last = kept.ready_for(HOST, world(shortly_before))

    assert last.not_valid_after_utc == ca.not_valid_after_utc
    with pytest.raises(BadOrder, match="renew --ca"):
        kept.ready_for(HOST, world(ca.not_valid_after_utc + timedelta(days=1)))


def test_a_ca_is_not_replaced_by_mistake_and_a_crash_between_key_and_certificate_is_finished(
    tmp_path: Path,
) -> None:
    kept = Kept(tmp_path)
    first = kept.make_ca([HOST], world())
    with pytest.raises(BadOrder, match="devices may trust it"):
        kept.make_ca([HOST], world())
    kept.ca_file.unlink()  # the power went after the key was written

    again = kept.make_ca([HOST], world())

    assert again.key.public_key() == first.key.public_key()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda kept: (kept.directory / "ca.key").unlink(), "ca.key is missing"),
        (lambda kept: (kept.directory / "ca.key").write_text("CANARY"), "ca.key is no key"),
        (lambda kept: kept.ca_file.write_text("CANARY"), "ca.crt is no certificate"),
        (
            lambda kept: (kept.directory / "ca.key").write_bytes(
                authority.pem_of_key(authority.new_key())
            ),
            "do not belong together",
        ),
    ],
)
def test_what_is_damaged_is_named_and_its_contents_are_not_shown(
    tmp_path: Path, spoil: Callable[[Kept], object], says: str
) -> None:
    kept = Kept(tmp_path)
    kept.ready_for(HOST, world())
    spoil(kept)

    with pytest.raises((BadOrder, BadSettings), match=says) as found:
        kept.renew_server(HOST, world())

    assert "CANARY" not in str(found.value)


def test_a_server_whose_own_clock_is_wrong_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadOrder, match="the clock of this machine says 1970"):
        Kept(tmp_path).ready_for(HOST, world(datetime(1970, 1, 1, 0, 5, tzinfo=UTC)))

    assert list(tmp_path.iterdir()) == []


def test_two_that_start_at_once_make_one_ca(tmp_path: Path) -> None:
    kept, made = Kept(tmp_path), []

    def start() -> None:
        made.append(kept.ready_for(HOST, world()))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(made)) == 1


# -- the deployer's files


def pair(
    directory: Path, name: str = "tls", *, host: str = HOST, at: datetime = MORNING
) -> tuple[Path, Path]:
    """A certificate and its key in two files, by a CA of its own."""
    issued = authority.issue(authority.make_authority([host], world(at)), host, world(at))
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    certificate.write_bytes(issued.certificate.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(authority.pem_of_key(issued.key))
    return certificate, key


def with_files(directory: Path, certificate: Path, key: Path) -> Settings:
    return Settings(
        data_dir=directory, public_url=f"https://{HOST}", tls_cert=certificate, tls_key=key
    )


def test_files_that_are_a_pair_for_the_host_are_served(tmp_path: Path) -> None:
    settings = with_files(tmp_path, *pair(tmp_path))

    check_tls(settings)
    served = open_tls(settings, world())

    assert settings.tls_mode is TlsMode.FILES
    assert served is not None
    assert authority.hosts_of(served.certificate) == [HOST]


def encrypted(directory: Path) -> tuple[Path, Path]:
    certificate, key = pair(directory)
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"CANARY"),
        )
    )
    return certificate, key


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda d: (d / "none.crt", pair(d)[1]), "CLOUDLY_TLS_CERT .* cannot be read: No such file"),
        (lambda d: (pair(d)[0], d / "none.key"), "CLOUDLY_TLS_KEY .* cannot be read: No such file"),
        (lambda d: (pair(d)[0], pair(d, "other")[1]), "is not the key of CLOUDLY_TLS_CERT"),
        (lambda d: (pair(d)[1], pair(d)[0]), "CLOUDLY_TLS_CERT .* holds no PEM certificate"),
        (lambda d: (pair(d)[0], pair(d)[0]), "CLOUDLY_TLS_KEY .* holds no PEM private key"),
        (lambda d: pair(d, at=MORNING - timedelta(days=100)), "ended at 2026-"),
        (lambda d: pair(d, host="other.example"), "is for other.example, and CLOUDLY_PUBLIC_URL says"),
        (encrypted, "has a passphrase"),
    ],
)  # fmt: skip
def test_files_that_no_device_would_accept_stop_the_start_and_say_why(
    tmp_path: Path,
    given: Callable[[Path], tuple[Path, Path]],
    says: str,
) -> None:
    certificate, key = given(tmp_path)

    with pytest.raises(BadSettings, match=says) as found:
        open_tls(with_files(tmp_path, certificate, key), world())

    assert "CANARY" not in str(found.value)
    assert "PRIVATE" not in str(found.value)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"CLOUDLY_TLS": "self"}, "CLOUDLY_PUBLIC_URL is not set"),
        ({"CLOUDLY_TLS": "files"}, "CLOUDLY_TLS_CERT is not set"),
        ({"CLOUDLY_TLS_CERT": "/a"}, "CLOUDLY_TLS_KEY is not set"),
        ({"CLOUDLY_TLS": "off", "CLOUDLY_TLS_KEY": "/a"}, "CLOUDLY_TLS_KEY is set, but"),
        ({"CLOUDLY_TLS": "self", "CLOUDLY_PUBLIC_URL": "http://c.example"}, "say https://"),
        ({"CLOUDLY_TLS": "yes"}, "CLOUDLY_TLS is malformed"),
        ({"CLOUDLY_PUBLIC_URL": "c.example"}, "CLOUDLY_PUBLIC_URL is malformed"),
        ({"CLOUDLY_PUBLIC_URL": "https://c.example/base"}, "it may have no path"),
        ({"CLOUDLY_PUBLIC_URL": "https://me:pw@c.example"}, "CLOUDLY_PUBLIC_URL is malformed"),
        ({"CLOUDLY_PUBLIC_URL": "https://c.example:99999"}, "CLOUDLY_PUBLIC_URL is malformed"),
    ],
)
def test_settings_that_do_not_go_together_are_named(environment: dict[str, str], says: str) -> None:
    with pytest.raises(BadSettings, match=says):
        check_tls(from_environment({"CLOUDLY_DATA_DIR": "/d", **environment}))


def test_a_wildcard_stands_for_one_label(tmp_path: Path) -> None:
    certificate, _ = pair(tmp_path, host="example")
    key = authority.new_key()
    wild = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(MORNING)
        .not_valid_after(MORNING + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("*.example.com")]), critical=False)
        .sign(key, hashes.SHA256())
    )

    assert authority.is_for(wild, "Cloudly.Example.com")
    assert not authority.is_for(wild, "a.b.example.com")
    assert not authority.is_for(wild, "example.com")
    assert not authority.is_for(deployed.certificates_in(certificate, "x")[0], "com")


# -- while it is served


def look(served: ServedTls) -> None:
    """A minute later."""
    served._looked_at = -1000.0
    served.look()


def test_a_file_that_was_renewed_is_served_without_a_restart_and_a_bad_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = pair(tmp_path)
    served = open_tls(with_files(tmp_path, certificate, key), world())
    assert served is not None
    first = served.certificate

    certificate.write_text("half a fi")
    served.look()
    after_bad = served.certificate
    os.utime(certificate)
    look(served)
    pair(tmp_path)
    look(served)

    assert after_bad == first
    assert [one.levelname for one in caplog.records].count("ERROR") == 1
    assert served.certificate != first


def test_the_context_that_is_live_gives_new_connections_the_new_certificate(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, public_url=f"https://{HOST}", tls=TlsMode.SELF)
    served = open_tls(settings, world())
    assert served is not None
    client = ssl.create_default_context(cafile=Kept.of(tmp_path).ca_file)
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    before = certificate_seen(client, served.context)

    Kept.of(tmp_path).renew_server(HOST, world())  # `cloudly ca renew`, in another process
    look(served)
    after = certificate_seen(client, served.context)

    assert before != after
    assert after == served.certificate.public_bytes(serialization.Encoding.DER)


def certificate_seen(client: ssl.SSLContext, server: ssl.SSLContext) -> bytes | None:
    """One handshake in memory: the certificate that the client accepted."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    ours = client.wrap_bio(to_client, to_server, server_hostname=HOST)
    for _ in range(4):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours.getpeercert(binary_form=True)


def test_a_full_disk_at_renewal_leaves_the_old_certificate_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(data_dir=tmp_path, public_url=f"https://{HOST}", tls=TlsMode.SELF)
    clock = world()
    served = open_tls(settings, clock)
    assert served is not None
    old, file = served.certificate, Kept.of(tmp_path).server_file.read_bytes()
    clock.jump(timedelta(days=70))

    with a_disk_that_takes_nothing():
        look(served)

    assert served.certificate == old
    assert Kept.of(tmp_path).server_file.read_bytes() == file
    assert "the certificate is not renewed" in caplog.text
    assert not list(Kept.of(tmp_path).directory.glob(".*"))


@contextmanager
def a_disk_that_takes_nothing() -> Iterator[None]:
    """No file of this process may grow: EFBIG, as ENOSPC would be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
