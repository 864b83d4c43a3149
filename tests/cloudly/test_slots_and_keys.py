"""What several servers have in common on disk: slots in one data directory, and keys that must be alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloudly import keys, servers, slots
from cloudly.balena.registry_keys import open_keys
from cloudly.cli import app as command
from cloudly.problems import AlreadyServing, KeysDiffer
from cloudly.settings import Settings
from cloudly.store import incarnation
from cloudly.store.store import Store
from cloudly.tickets import Tickets
from cloudly.tls.kept import Kept
from interfaces.world import RealWorld
from simulators.world import SimWorld

ON_POSTGRESQL = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
URL = "https://cloudly.example:8443"

# -- slots


def test_servers_of_one_directory_have_slots_one_after_the_other(tmp_path: Path) -> None:
    with slots.taken(tmp_path, machine="m", shared=True) as first:
        with slots.taken(tmp_path, machine="m", shared=True) as second:
            held = slots.in_use(tmp_path)
        with slots.taken(tmp_path, machine="m", shared=True) as third:
            assert (first, second, third) == (0, 1, 1)

    assert held == {0: str(os.getpid()), 1: str(os.getpid())}
    assert slots.in_use(tmp_path) == {}


def test_the_first_slot_is_taken_again_when_its_server_has_gone(tmp_path: Path) -> None:
    first = slots.taken(tmp_path, machine="m", shared=True)
    assert first.__enter__() == 0
    with slots.taken(tmp_path, machine="m", shared=True) as second:
        first.__exit__(None, None, None)
        with slots.taken(tmp_path, machine="m", shared=True) as third:
            assert (second, third) == (1, 0)


def test_with_sqlite_there_is_one_server(tmp_path: Path) -> None:
    with (
        slots.taken(tmp_path, machine="m", shared=False),
        pytest.raises(AlreadyServing, match=f"by process {os.getpid()}"),
        slots.taken(tmp_path, machine="m", shared=False),
    ):
        pass


def test_a_directory_is_not_shared_with_another_machine(tmp_path: Path) -> None:
    with (
        slots.taken(tmp_path, machine="here", shared=True),
        pytest.raises(AlreadyServing, match=r"another machine.*docs/scaling"),
        slots.taken(tmp_path, machine="there", shared=True),
    ):
        pass
    with slots.taken(tmp_path, machine="there", shared=True) as slot:
        assert slot == 0


def test_what_belongs_to_a_server_bears_its_number() -> None:
    assert slots.numbered("logs.db", 0) == "logs.db"
    assert slots.numbered("logs.db", 3) == "logs-3.db"
    assert slots.numbered("logs.db.damaged", 3) == "logs-3.db.damaged"


TAKE = """
import sys
from pathlib import Path
from cloudly.slots import taken
sys.stdin.readline()
with taken(Path(sys.argv[1]), machine="m", shared=True) as slot:
    print(slot, flush=True)
    sys.stdin.readline()
"""


@dataclass
class Together:
    """Real processes that do something at the same moment."""

    program: str
    arguments: tuple[str, ...]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def answers(self, count: int = 2) -> list[str]:
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", self.program, *self.arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(count)
        ]  # fmt: skip
        for process in self.processes:
            self._say(process)
        return [self._hear(process) for process in self.processes]

    def end(self) -> None:
        for process in self.processes:
            self._say(process)
            process.communicate(timeout=20)

    @staticmethod
    def _say(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    @staticmethod
    def _hear(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()


@pytest.mark.slow
def test_servers_that_start_together_never_have_one_slot(tmp_path: Path) -> None:
    together = Together(TAKE, (str(tmp_path),))
    answers = together.answers(6)
    held = slots.in_use(tmp_path)
    together.end()

    assert sorted(map(int, answers)) == [0, 1, 2, 3, 4, 5] == list(held)


# -- keys that are made by two servers at the same moment

MAKE = """
import hashlib, sys
from pathlib import Path
from cloudly import keys, servers
from cloudly.settings import Settings
from interfaces.world import RealWorld
world = RealWorld()
sys.stdin.readline()
for number in range(20):
    at = Path(sys.argv[1]) / str(number)
    settings = Settings(
        data_dir=at, registry_service="registry.example", public_url="https://cloudly.example", tls="self"
    )
    made = [key.fingerprint() for key in keys.of(settings, world)]
    made.append(servers.directory_id(at, world))
    print(hashlib.sha256(repr(made).encode()).hexdigest(), end=" ")
print(flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
def test_two_servers_that_start_together_have_the_same_keys_twenty_times(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).mkdir()
    together = Together(MAKE, (str(tmp_path),))
    one, other = together.answers()
    together.end()

    assert one == other
    assert len(set(one.split())) == 20
    assert {(file.stat().st_mode & 0o777) for file in tmp_path.glob("*/ticket.key")} == {0o600}


LOSES = MAKE.replace(
    "world = RealWorld()",
    "world = RealWorld()\n"
    "import contextlib, cloudly.tickets\n"
    "cloudly.tickets.alone = lambda _: contextlib.nullcontext()\n"
    "really = RealWorld.random_bytes\n"
    "import time\n"
    "RealWorld.random_bytes = lambda self, count: (time.sleep(0.05), really(self, count))[1]",
)


@pytest.mark.slow
def test_and_this_harness_sees_a_key_that_is_made_without_a_lock(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).mkdir()
    together = Together(LOSES, (str(tmp_path),))
    one, other = together.answers()
    together.end()

    assert one != other


# -- keys in directories of their own


class Host:
    """A server's directory on a host of its own, over the one database."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.settings = Settings(
            data_dir=directory,
            database_url=url,
            registry_service="registry.example",
            public_url=URL,
            tls="self",
        )
        self.world = RealWorld()
        self.store = Store.open(directory, self.world, database_url=url)

    def starts(self) -> None:
        keys.check(self.store, keys.of(self.settings, self.world))


@pytest.fixture
def hosts(tmp_path: Path, database_url: str) -> Iterator[tuple[Host, Host]]:
    first, second = Host(tmp_path / "a", database_url), Host(tmp_path / "b", database_url)
    yield first, second
    first.store.close()
    second.store.close()


def copy(file: str, a: Host, b: Host) -> None:
    (b.directory / file).parent.mkdir(exist_ok=True)
    (b.directory / file).write_bytes((a.directory / file).read_bytes())


EVERY = ("ticket.key", "registry/keys.json", "registry/token.crt", "tls/ca.key", "tls/ca.crt")


@ON_POSTGRESQL
def test_a_server_without_the_keys_of_the_first_does_not_start_and_says_what_to_copy(
    hosts: tuple[Host, Host],
) -> None:
    first, second = hosts
    first.starts()

    for files in (EVERY[:1], EVERY[1:3], EVERY[3:]):
        with pytest.raises(KeysDiffer) as refused:
            second.starts()
        words = str(refused.value)
        assert "is missing" in words
        assert f"copy {' and '.join(files)} from " in words
        assert f":{first.directory}" in words
        assert not (second.directory / files[0]).exists()
        for file in files:
            copy(file, first, second)
    second.starts()
    first.starts()


@ON_POSTGRESQL
def test_a_server_with_a_key_of_its_own_does_not_start_and_tells_nothing_of_keys(
    hosts: tuple[Host, Host],
) -> None:
    first, second = hosts
    first.starts()
    for file in EVERY:
        copy(file, first, second)
    own = second.world.random_bytes(32)
    (second.directory / "ticket.key").write_bytes(own)

    with pytest.raises(KeysDiffer) as refused:
        second.starts()

    meta = first.store.read_now(
        lambda db: [tuple(row) for row in db.execute("SELECT key, value FROM meta")]
    )
    told = str(refused.value) + repr(meta)
    private = Kept.of(first.directory).authority().key.private_numbers().private_value
    kept = open_keys(first.directory, first.world)
    for key in (own, Tickets(first.directory, first.world).key(), private.to_bytes(32, "big")):
        assert key.hex() not in told
        assert str(key) not in told
    for secret in (kept.signing.key, kept.following.key):
        assert secret.get_secret_value()[40:80] not in told
    assert "ticket.key is not the key that other servers" in str(refused.value)


@ON_POSTGRESQL
def test_of_two_that_make_keys_in_two_directories_one_starts(hosts: tuple[Host, Host]) -> None:
    first, second = hosts
    Tickets(first.directory, first.world).key()
    Tickets(second.directory, second.world).key()

    first.starts()
    with pytest.raises(KeysDiffer):
        second.starts()


@ON_POSTGRESQL
def test_a_key_that_is_replaced_on_purpose_is_the_one_of_all_servers(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = hosts
    first.starts()
    for file in EVERY:
        copy(file, first, second)
    monkeypatch.setenv("CLOUDLY_DATA_DIR", str(first.directory))
    monkeypatch.setenv("CLOUDLY_PUBLIC_URL", URL)

    turned = CliRunner().invoke(command, ["registry", "rotate-key"])
    replaced = CliRunner().invoke(command, ["ca", "init", "--replace"])

    assert (turned.exit_code, replaced.exit_code) == (0, 0), turned.output + replaced.output
    first.starts()
    with pytest.raises(KeysDiffer, match=r"registry/keys\.json is not the key"):
        second.starts()
    monkeypatch.setenv("CLOUDLY_DATA_DIR", str(second.directory))
    stale = CliRunner().invoke(command, ["registry", "rotate-key"])
    assert isinstance(stale.exception, KeysDiffer)
    for file in EVERY:
        copy(file, first, second)
    second.starts()


@ON_POSTGRESQL
def test_a_key_that_is_lost_is_given_up_by_a_command(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = hosts
    first.starts()
    for file in EVERY[1:]:
        copy(file, first, second)
    monkeypatch.setenv("CLOUDLY_DATA_DIR", str(second.directory))

    done = CliRunner().invoke(command, ["servers", "accept-keys"])

    assert done.exit_code == 0, done.output
    assert "ticket.key" in done.output
    second.starts()
    with pytest.raises(KeysDiffer, match=r"ticket\.key is not the key"):
        first.starts()


def test_with_sqlite_keys_are_nobody_elses(tmp_path: Path) -> None:
    world = SimWorld(7)
    store = Store.open(tmp_path, world)
    used = keys.of(Settings(data_dir=tmp_path), world)
    keys.check(store, used)
    (tmp_path / "ticket.key").write_bytes(b"k" * 32)

    keys.check(store, used)

    assert (
        store.read_now(
            lambda db: db.execute("SELECT * FROM meta WHERE key LIKE 'key/%'").fetchall()
        )
        == []
    )
    store.close()


def test_an_incarnation_is_written_by_one_at_a_time_and_is_whole(tmp_path: Path) -> None:
    (tmp_path / "incarnation.new").write_text(
        "what a server that was killed left behind, and longer"
    )

    incarnation.write(tmp_path, "a" * 32, 7)

    assert incarnation.read(tmp_path) == ("a" * 32, 7)


# -- servers that know of each other


@ON_POSTGRESQL
def test_servers_are_listed_with_where_they_keep_logs(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = hosts
    for host, slot in ((first, 0), (first, 1), (second, 0)):
        present = servers.Present(host.store, host.world, host.directory, slot, 7 * 86_400_000)
        host.store.write_now(lambda db, present=present: servers.note(db, present.server))  # type: ignore[misc]
    monkeypatch.setenv("CLOUDLY_DATA_DIR", str(first.directory))

    shown = CliRunner().invoke(command, ["servers"])
    told = json.loads(CliRunner().invoke(command, ["servers", "--json"]).stdout)

    assert shown.exit_code == 0, shown.output
    assert shown.output.count("this directory") == 2
    assert f"there, in {second.directory}" in shown.output
    assert [(one["slot"], one["state"], one["here"]) for one in told] == [
        (0, "running", True), (1, "running", True), (0, "running", False),
    ]  # fmt: skip
    known = first.store.read_now(servers.listed)
    here = servers.directory_id(first.directory, first.world)
    assert [place.split(":")[1] for place in servers.elsewhere(known, here)] == [
        str(second.directory)
    ]


@ON_POSTGRESQL
def test_a_server_that_is_silent_is_said_to_be_and_forgotten_with_its_logs(
    hosts: tuple[Host, Host],
) -> None:
    first, _ = hosts
    present = servers.Present(first.store, first.world, first.directory, 0, 7 * 86_400_000)
    seen = present.server.seen_at_ms
    first.store.write_now(lambda db: servers.note(db, present.server))

    (known,) = first.store.read_now(servers.listed)
    states = [known.state(seen + after) for after in (0, 99_000, 101_000)]
    first.store.write_now(lambda db: servers.forget(db, seen))
    still = first.store.read_now(servers.listed)
    first.store.write_now(lambda db: servers.forget(db, seen + 1))

    assert states == ["running", "running", "silent"]
    assert len(still) == 1
    assert first.store.read_now(servers.listed) == []


def test_with_sqlite_the_one_server_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDLY_DATA_DIR", str(tmp_path))
    Store.open(tmp_path, SimWorld(7)).close()

    none = CliRunner().invoke(command, ["servers"]).output
    with slots.taken(tmp_path, machine="m", shared=False):
        one = CliRunner().invoke(command, ["servers"]).output

    assert "No server runs" in none
    assert str(os.getpid()) in one
