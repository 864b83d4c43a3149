"""The shared directory: who serves in it, which token is this boot's, and what is not trusted there."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from baserunner.local_api.place import BOOT_FILE, Door, open_door
from baserunner.problems import LocalApiProblem
from baserunner.settings import LocalApi
from interfaces.local import SOCKET_FILE, TOKEN_FILE
from simulators.world import SimWorld

ME = frozenset({os.geteuid()})
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files to another user takes root")


@pytest.fixture
def root() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="place-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def chosen(root: Path) -> LocalApi:
    return LocalApi(root / "api", ME)


@pytest.fixture
def world() -> SimWorld:
    return SimWorld("device")


def token_of(chosen: LocalApi, world: SimWorld) -> str:
    """Of an agent that starts and stops."""
    door = open_door(chosen, world)
    door.close()
    return door.token.get_secret_value()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def reaches(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(str(path))
        except OSError:
            return False
        return True


def test_the_directory_the_socket_and_the_token_are_private(
    chosen: LocalApi, world: SimWorld
) -> None:
    door = open_door(chosen, world)

    place = chosen.directory
    assert mode(place) == 0o750
    assert mode(place / SOCKET_FILE) == 0o660
    assert mode(place / TOKEN_FILE) == 0o600
    assert (place / TOKEN_FILE).read_text() == door.token.get_secret_value()
    assert door.token.get_secret_value() not in repr(door)
    door.close()


def test_a_restart_of_the_agent_keeps_the_token_and_a_boot_of_the_host_makes_another(
    chosen: LocalApi, world: SimWorld
) -> None:
    first = token_of(chosen, world)
    after_a_restart = token_of(chosen, world)
    world.reboot()
    after_a_boot = token_of(chosen, world)

    assert first == after_a_restart
    assert first != after_a_boot
    assert token_of(chosen, world) == after_a_boot


@pytest.mark.parametrize("content", [b"", b"bct_short", b"bct_" + b"a" * 43 + b"\n", b"\xff" * 47])
def test_what_is_no_token_is_replaced(chosen: LocalApi, world: SimWorld, content: bytes) -> None:
    token_of(chosen, world)
    (chosen.directory / TOKEN_FILE).write_bytes(content)

    again = token_of(chosen, world)

    assert again.startswith("bct_")
    assert (chosen.directory / TOKEN_FILE).read_text() == again


def test_a_token_that_others_could_read_is_replaced(chosen: LocalApi, world: SimWorld) -> None:
    before = token_of(chosen, world)
    (chosen.directory / TOKEN_FILE).chmod(0o644)

    assert token_of(chosen, world) != before
    assert mode(chosen.directory / TOKEN_FILE) == 0o600


def test_a_token_that_is_a_link_is_replaced_and_what_it_points_at_is_left_alone(
    chosen: LocalApi, world: SimWorld
) -> None:
    before = token_of(chosen, world)
    elsewhere = chosen.directory.parent / "elsewhere"
    (chosen.directory / TOKEN_FILE).rename(elsewhere)
    (chosen.directory / TOKEN_FILE).symlink_to(elsewhere)

    after = token_of(chosen, world)

    assert after != before
    assert elsewhere.read_text() == before
    assert not (chosen.directory / TOKEN_FILE).is_symlink()


def test_a_token_without_its_boot_id_is_another_boots(chosen: LocalApi, world: SimWorld) -> None:
    before = token_of(chosen, world)
    (chosen.directory / BOOT_FILE).unlink()

    assert token_of(chosen, world) != before


def test_a_stale_socket_is_in_nobodys_way(chosen: LocalApi, world: SimWorld) -> None:
    killed = open_door(chosen, world)
    for listener in killed.listeners:
        listener.close()  # as the kernel does for a killed process, flock included
    os.close(killed._held.pop())
    assert (chosen.directory / SOCKET_FILE).exists()
    assert not reaches(chosen.directory / SOCKET_FILE)

    door = open_door(chosen, world)

    assert reaches(chosen.directory / SOCKET_FILE)
    door.close()
    assert not (chosen.directory / SOCKET_FILE).exists()


def test_a_second_agent_does_not_take_the_socket_from_the_first(
    chosen: LocalApi, world: SimWorld
) -> None:
    door = open_door(chosen, world)

    with pytest.raises(LocalApiProblem, match="another agent serves it there"):
        open_door(chosen, world)

    assert door.is_there
    assert reaches(chosen.directory / SOCKET_FILE)
    door.close()
    open_door(chosen, world).close()


def test_a_socket_that_has_gone_or_is_anothers_is_noticed(
    chosen: LocalApi, world: SimWorld
) -> None:
    door = open_door(chosen, world)
    path = chosen.directory / SOCKET_FILE

    path.unlink()
    gone = door.is_there
    path.write_text("something else")
    replaced = door.is_there
    door.close()

    assert (gone, replaced) == (False, False)
    assert path.read_text() == "something else"  # not ours to remove


def test_a_link_or_a_file_in_its_place_is_refused(chosen: LocalApi, world: SimWorld) -> None:
    (chosen.directory.parent / "real").mkdir()
    chosen.directory.symlink_to("real")
    with pytest.raises(LocalApiProblem, match="a link of uid"):
        open_door(chosen, world)

    chosen.directory.unlink()
    chosen.directory.write_text("")
    with pytest.raises(LocalApiProblem, match="a file of uid"):
        open_door(chosen, world)


def test_a_missing_volume_is_not_made_up(chosen: LocalApi, world: SimWorld) -> None:
    deep = LocalApi(chosen.directory / "not" / "mounted", ME)

    with pytest.raises(LocalApiProblem, match="No such file or directory"):
        open_door(deep, world)

    assert not chosen.directory.exists()


def test_a_path_that_is_too_long_for_a_socket_is_said_to_be(
    chosen: LocalApi, world: SimWorld
) -> None:
    with pytest.raises(LocalApiProblem, match="too long for a socket"):
        open_door(LocalApi(chosen.directory.parent / ("x" * 120), ME), world)


def test_after_a_failure_nothing_is_left_open(chosen: LocalApi, world: SimWorld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalApiProblem, match="BASEOS_LOCAL_API_PORT"):
            open_door(LocalApi(chosen.directory, ME, port=port), world)

    door: Door = open_door(chosen, world)  # the lock is free again
    door.close()


def test_loopback_is_127_0_0_1_and_nothing_else(chosen: LocalApi, world: SimWorld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    door = open_door(LocalApi(chosen.directory, ME, port=port), world)

    assert [listener.getsockname() for listener in door.listeners[1:]] == [("127.0.0.1", port)]
    door.close()


@as_root
def test_anothers_directory_is_refused(chosen: LocalApi, world: SimWorld) -> None:
    chosen.directory.mkdir()
    os.chown(chosen.directory, 1234, 1234)

    with pytest.raises(LocalApiProblem, match="of uid 1234"):
        open_door(chosen, world)


@as_root
def test_a_chosen_group_reaches_the_socket_and_reads_the_token(
    chosen: LocalApi, world: SimWorld
) -> None:
    door = open_door(LocalApi(chosen.directory, ME, group=4242), world)

    place = chosen.directory
    assert {(place / name).stat().st_gid for name in (".", SOCKET_FILE, TOKEN_FILE)} == {4242}
    assert mode(place) == 0o2750
    assert mode(place / TOKEN_FILE) == 0o640
    door.close()
