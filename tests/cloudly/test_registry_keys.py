"""The keys behind registry tokens, and the commands around them: made once, turned without a pause, never half."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
import yaml
from cryptography import x509

from cloudly.balena.registry_keys import BUNDLE, FOLDER, KEPT_MS, KEYS, Keys, open_keys, turn
from cloudly.cli.registry import realm_of
from cloudly.problems import BadOrder, BadSettings, StoreUnavailable
from cloudly.settings import from_environment
from cloudly.store import publishers
from cloudly.store.publishers import Publisher
from interfaces.world import now_ms
from simulators.world import SimWorld
from tests.cloudly.given import UUID, Plane, bearer, code_of
from tests.cloudly.test_command_line import Command

pytestmark = pytest.mark.anyio

HOST = "registry.example"
KEY = "5016ddb664b64d5685d6560d4ec35bef"


@pytest.fixture
def world() -> SimWorld:
    return SimWorld(11)


@pytest.fixture
def run(directory: Path) -> Command:
    return Command(directory)


def trusted(keys: Keys, world: SimWorld) -> list[str]:
    """Subjects of the bundle at this moment, by name of their place."""
    places = {keys.signing.certificate: "signing", keys.following.certificate: "following"}
    bundle = keys.bundle(now_ms(world))
    found = [
        f"-----BEGIN CERTIFICATE-----{part}" for part in bundle.split("-----BEGIN CERTIFICATE-----")
    ]
    return [places.get(one, "former") for one in found[1:]]


async def test_keys_are_made_once_and_only_their_owner_may_read_them(
    tmp_path: Path, world: SimWorld
) -> None:
    data = tmp_path / "new" / "cloudly"

    made = open_keys(data, world)

    folder = data / FOLDER
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()}
    assert modes == {KEYS: 0o600, BUNDLE: 0o644, "lock": 0o600}
    assert [stat.S_IMODE(one.stat().st_mode) for one in (folder, data)] == [0o700, 0o700]
    assert open_keys(data, SimWorld(12)) == made
    assert (folder / BUNDLE).read_text() == made.bundle(now_ms(world))
    assert "PRIVATE" not in (folder / BUNDLE).read_text() + repr(made)


async def test_a_certificate_is_good_for_years_and_may_sign_no_other(
    tmp_path: Path, world: SimWorld
) -> None:
    keys = open_keys(tmp_path, world)
    one, other = (
        x509.load_pem_x509_certificate(kept.certificate.encode())
        for kept in (keys.signing, keys.following)
    )

    assert one.not_valid_before_utc < world.now() - timedelta(hours=1)
    assert one.not_valid_after_utc > world.now() + timedelta(days=3000)
    assert not one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert one.serial_number != other.serial_number
    assert one.public_key() != other.public_key()
    one.verify_directly_issued_by(one)


async def test_the_key_that_signs_next_was_in_the_bundle_before(
    tmp_path: Path, world: SimWorld
) -> None:
    before = open_keys(tmp_path, world)

    after = turn(tmp_path, world)

    assert after.signing == before.following
    assert after.signing.certificate in before.bundle(now_ms(world))
    assert trusted(after, world) == ["signing", "following", "former"]
    assert before.signing.certificate in after.bundle(now_ms(world))
    kept = (tmp_path / FOLDER / KEYS).read_text()
    assert json.dumps(before.signing.key.get_secret_value()) not in kept  # it signs no more
    assert open_keys(tmp_path, world) == after


async def test_a_former_certificate_stays_until_its_last_token_has_ended(
    tmp_path: Path, world: SimWorld
) -> None:
    open_keys(tmp_path, world)
    turn(tmp_path, world)
    world.jump(timedelta(milliseconds=KEPT_MS - 1))
    keys = turn(tmp_path, world)

    assert trusted(keys, world) == ["signing", "following", "former", "former"]
    world.jump(timedelta(milliseconds=1))
    assert trusted(keys, world) == ["signing", "following", "former"]
    world.jump(timedelta(milliseconds=KEPT_MS))
    assert trusted(keys, world) == ["signing", "following"]
    assert len(turn(tmp_path, world).former) == 1


async def test_after_a_leak_nothing_of_before_is_trusted(tmp_path: Path, world: SimWorld) -> None:
    before = open_keys(tmp_path, world)

    after = turn(tmp_path, world, at_once=True)

    bundle = after.bundle(now_ms(world))
    assert before.signing.certificate not in bundle
    assert before.following.certificate not in bundle
    assert trusted(after, world) == ["signing", "following"]


@pytest.mark.parametrize("text", ["", "{", "{}", '{"signing": {"key": "S3CRET"}}'])
async def test_keys_that_cannot_be_read_are_not_replaced_unless_the_operator_says_so(
    tmp_path: Path, world: SimWorld, text: str
) -> None:
    open_keys(tmp_path, world)
    file = tmp_path / FOLDER / KEYS
    file.write_text(text)

    for attempt in (open_keys, turn):
        with pytest.raises(StoreUnavailable, match="rotate-key --at-once") as refused:
            attempt(tmp_path, world)
        assert "S3CRET" not in str(refused.value)

    assert file.read_text() == text
    turn(tmp_path, world, at_once=True)
    assert open_keys(tmp_path, world).signing


@pytest.mark.parametrize("broken", ["key", "certificate"])
async def test_a_broken_key_is_503_and_a_restored_one_signs_again(
    directory: Path, broken: str
) -> None:
    plane = await _with_a_device(directory)
    file = directory / FOLDER / KEYS
    assert (await _ask(plane)).status_code == 200
    good = file.read_text()
    bad = json.loads(good)
    bad["signing"][broken] = "S3CRET"
    file.write_text(json.dumps(bad))

    refused = await _ask(plane)
    file.write_text(good)

    assert code_of(refused) == (503, "busy")
    assert "S3CRET" not in refused.text
    assert (await _ask(plane)).status_code == 200
    plane.end()


@pytest.mark.parametrize("at", range(8))
async def test_a_disk_that_fails_while_keys_are_turned_leaves_keys_that_the_bundle_has(
    tmp_path: Path, world: SimWorld, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    before = open_keys(tmp_path, world)
    calls = iter(range(100))
    really = os.fsync

    def fsync(opened: int) -> None:
        if next(calls) == at:
            raise OSError(28, "No space left on device")
        really(opened)

    monkeypatch.setattr("cloudly.balena.registry_keys.os.fsync", fsync)
    try:
        turn(tmp_path, world)
        failed = False
    except StoreUnavailable:
        failed = True
    monkeypatch.undo()

    after = open_keys(tmp_path, world)
    assert failed == (at < 4)  # two files, and the folder after each
    assert after.signing in {before.signing, before.following}
    assert after.signing.certificate in (tmp_path / FOLDER / BUNDLE).read_text()
    assert not list((tmp_path / FOLDER).glob("*.new"))


async def test_a_server_notices_that_the_command_line_turned_the_key(
    directory: Path, run: Command
) -> None:
    plane = await _with_a_device(directory)
    before = (await _ask(plane)).json()["token"].split(".")[0]
    again = (await _ask(plane)).json()["token"].split(".")[0]

    run("registry", "rotate-key")

    after = (await _ask(plane)).json()["token"].split(".")[0]
    assert before == again != after
    plane.end()


async def test_keys_survive_the_process(directory: Path) -> None:
    plane = await _with_a_device(directory)
    before = (await _ask(plane)).json()["token"].split(".")[0]

    plane.end()
    later = Plane.begin(directory, world=plane.world, registry_service=HOST)

    assert (await _ask(later)).json()["token"].split(".")[0] == before
    later.end()


# -- commands


def test_the_configuration_is_yaml_that_names_what_was_written(
    run: Command, tmp_path: Path
) -> None:
    out = tmp_path / "bundle.crt"

    printed = run(
        "registry", "config", "--service", "registry.example:5000",
        "--realm", "https://cloudly.example/", "--out", str(out),
    ).stdout  # fmt: skip

    assert yaml.safe_load(printed) == {
        "auth": {
            "token": {
                "realm": "https://cloudly.example/auth/v1/token",
                "service": "registry.example:5000",
                "issuer": "cloudly",
                "rootcertbundle": str(out),
                "signingalgorithms": ["ES256"],
            }
        }
    }
    assert "CLOUDLY_REGISTRY_SERVICE=registry.example:5000" in printed
    assert out.read_text().count("BEGIN CERTIFICATE") == 2
    assert "PRIVATE" not in out.read_text()


def test_the_settings_of_the_server_are_taken_where_no_option_is_given(run: Command) -> None:
    done = run(
        "registry", "config", "--realm", "http://cloudly.example:80/auth/v1/token",
        CLOUDLY_REGISTRY_SERVICE=HOST, CLOUDLY_REGISTRY_ISSUER="us",
    )  # fmt: skip

    token = yaml.safe_load(done.stdout)["auth"]["token"]
    assert (token["service"], token["issuer"]) == (HOST, "us")
    assert token["realm"] == "http://cloudly.example:80/auth/v1/token"
    assert Path(token["rootcertbundle"]).read_text().count("BEGIN CERTIFICATE") == 2
    assert "not https" in done.stderr


def test_what_no_registry_could_use_is_refused_with_an_example(
    run: Command, directory: Path
) -> None:
    words = ("registry", "config", "--realm")

    assert "--service" in run(*words, "https://c.example", expect=2).stderr
    assert "https://" in run(*words, "c.example", "--service", HOST, expect=2).stderr
    assert (
        "SERVICE=registry.example"
        in run(*words, "https://c.example", "--service", "registry", expect=2).stderr
    )
    assert not (directory / FOLDER).exists()


@pytest.mark.parametrize(
    "realm",
    ["", "c.example", "https://", "https://u:p@c.example", "https://c.example?x=1", "https://c.example#x",
     "ftp://c.example", 'https://c.example/"', "https://c.example/\n", "https://c.example\n", "https://[c", "https:///x",
     "https://c.example:port", "HTTPS://c.example", "https://c.example/a b"],
)  # fmt: skip
def test_a_realm_is_an_address_and_nothing_more(realm: str) -> None:
    with pytest.raises(typer.BadParameter, match=re.escape("https://cloudly.example")):
        realm_of(realm)


def test_a_realm_may_be_given_with_or_without_the_route() -> None:
    full = "https://c.example:8443/behind/auth/v1/token"

    assert realm_of("https://c.example:8443/behind") == realm_of(full) == full
    assert realm_of("http://[::1]:80/") == "http://[::1]:80/auth/v1/token"


@pytest.mark.parametrize(
    "service", ["registry", "R.example", f"{HOST}/x", f"{HOST}\n", "", "a..b", "x:y", ".a:1\n"]
)
def test_a_service_is_the_host_that_images_name(service: str, tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"CLOUDLY_REGISTRY_SERVICE=registry\.example"):
        from_environment({}, data_dir=tmp_path, registry_service=service)


def test_a_bundle_that_cannot_be_written_is_one_line(run: Command, tmp_path: Path) -> None:
    for out in (tmp_path / "no" / "such" / "folder", tmp_path):
        done = run(
            "registry", "config", "--realm", "https://c.example", "--service", HOST,
            "--out", str(out), expect=1,
        )  # fmt: skip
        assert done.stderr.strip().splitlines()[-1].startswith("cloudly: ")


def test_a_publishers_password_is_shown_once(run: Command) -> None:
    password = run("registry", "publisher", "create", "ci").stdout.strip()
    made = run.json("registry", "publisher", "create", "team", "--prefix", "team/app")

    listed = run("registry", "publisher", "list").stdout
    rows = run.json("registry", "publisher", "list")

    assert (password[:4], len(password), made["password"][:4]) == ("bpt_", 47, "bpt_")
    assert [(row["name"], row["prefix"]) for row in rows] == [("ci", ""), ("team", "team/app")]
    for secret in (password, made["password"]):
        assert secret not in listed + json.dumps(rows)
    assert "everywhere" in listed
    assert "team/app/..." in listed


@pytest.mark.parametrize(
    ("name", "prefix", "says"),
    [
        ("d_ci", "", "for example ci"),
        ("CI", "", "for example ci"),
        ("a:b", "", "for example ci"),
        ("", "", "for example ci"),
        ("x", "team/", "--prefix team/app"),
        ("x", "../x", "--prefix team/app"),
        ("taken", "", "there is a publisher taken already"),
    ],
)
async def test_a_publisher_that_cannot_be_is_refused_and_nothing_changes(
    directory: Path, name: str, prefix: str, says: str
) -> None:
    plane = Plane.begin(directory)
    plane.store.write_now(lambda db: publishers.create(db, Publisher("taken", "", 1), "p" * 40))
    before = plane.rows("meta")

    with pytest.raises(BadOrder, match=re.escape(says)):
        plane.store.write_now(
            lambda db: publishers.create(db, Publisher(name, prefix, 1), "q" * 40)
        )

    assert plane.rows("meta") == before
    plane.end()


def test_a_revoked_publisher_is_gone_from_the_list(run: Command) -> None:
    run("registry", "publisher", "create", "ci")
    run("registry", "publisher", "revoke", "ci")

    assert "publisher create" in run("registry", "publisher", "list").stdout
    assert "publisher list" in run("registry", "publisher", "revoke", "ci", expect=1).stderr


def test_two_processes_make_one_set_of_keys(directory: Path) -> None:
    code = (
        "from pathlib import Path; import sys, time\n"
        "from cloudly.balena import registry_keys\n"
        "from cloudly.balena.registry_keys import open_keys\n"
        "from interfaces.world import RealWorld\n"
        "make = registry_keys._new_key\n"
        "registry_keys._new_key = lambda world: (time.sleep(0.5), make(world))[1]\n"  # all meet there
        "print(hash(open_keys(Path(sys.argv[1]), RealWorld()).signing.certificate))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(directory)],
            env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0"},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip

    said = {one.communicate(timeout=60)[0] for one in started}

    assert len(said) == 1
    assert said != {""}


async def _with_a_device(directory: Path) -> Plane:
    plane = Plane.begin(directory, registry_service=HOST)
    answer = await plane.client.post(
        "/device/register", json={"uuid": UUID, "api_key": KEY}, headers=bearer(plane.join_token())
    )
    assert answer.status_code == 201
    return plane


async def _ask(plane: Plane, **more: Any) -> httpx.Response:
    return await plane.client.get(
        "/auth/v1/token", params={"service": HOST} | more, auth=(f"d_{UUID}", KEY)
    )
