"""The container's first process, run for real: as root in a folder of its own, its child tells what it became."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ENTRYPOINT = Path(__file__).resolve().parents[2] / "docker" / "entrypoint.py"
AGENT = 1001

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="giving up root takes root; CI and the container have it"
)


@dataclass(frozen=True)
class Container:
    """A data directory and a lock directory that any user can reach (pytest's own folders are root's alone)."""

    data: Path
    locks: Path

    @property
    def home(self) -> Path:
        return self.data / "baseos"

    def start(
        self, *program: str, data: Path | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", str(ENTRYPOINT), *program],
            env={
                "PATH": "/usr/bin:/bin",
                "BASEOS_DATA_DIR": str(data or self.data),
                "BASEOS_LOCK_DIR": str(self.locks),
                **more,
            },
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def container() -> Iterator[Container]:
    place = Path(tempfile.mkdtemp(prefix="baseos-entrypoint-"))
    place.chmod(0o755)
    (place / "data").mkdir(mode=0o755)
    (place / "locks").mkdir(mode=0o755)
    yield Container(place / "data", place / "locks")
    shutil.rmtree(place)


def owner(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


@as_root
def test_the_program_runs_as_uid_and_gid_1001_without_groups_capabilities_or_core_dumps(
    container: Container,
) -> None:
    outcome = container.start("sh", "-c", "cat /proc/self/status; ulimit -Hc; umask")

    status = dict(line.split(":\t", 1) for line in outcome.stdout.splitlines() if ":\t" in line)
    assert outcome.returncode == 0, outcome.stderr
    assert status["Uid"].split() == ["1001"] * 4
    assert status["Gid"].split() == ["1001"] * 4
    assert status["Groups"].split() == []
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert outcome.stdout.splitlines()[-2:] == ["0", "0077"]


@as_root
def test_a_volume_that_root_wrote_first_is_given_to_the_agent(container: Container) -> None:
    container.home.mkdir(mode=0o700)
    state = container.home / "state.json"
    state.write_text("{}")
    state.chmod(0o600)
    (container.home / "requests").mkdir(mode=0o700)

    outcome = container.start("cat", str(state))

    assert (outcome.returncode, outcome.stdout) == (0, "{}")
    assert "gave 3 files and folders" in outcome.stderr
    assert {owner(container.home), owner(state), owner(container.home / "requests")} == {
        (AGENT, AGENT)
    }
    assert state.stat().st_mode & 0o777 == 0o600


@as_root
def test_a_link_in_the_volume_does_not_give_away_what_it_points_at(container: Container) -> None:
    container.home.mkdir()
    outside = container.data / "outside"
    outside.write_text("root's")
    (container.home / "link").symlink_to(outside)
    (container.home / "folder").symlink_to(container.data)

    container.start("true")

    assert owner(outside) == (0, 0)
    assert owner(container.data) == (0, 0)
    assert owner(container.home / "link") == (AGENT, AGENT)


@as_root
def test_a_fresh_volume_gets_a_folder_that_only_the_agent_can_read(container: Container) -> None:
    outcome = container.start("touch", str(container.home / "journal.db"))

    assert outcome.returncode == 0, outcome.stderr
    assert owner(container.home) == (AGENT, AGENT)
    assert container.home.stat().st_mode & 0o777 == 0o700


@as_root
def test_the_agent_can_take_and_drop_its_update_lock_on_a_fresh_device(
    container: Container,
) -> None:
    lock = container.locks / "updates.lock"

    outcome = container.start("sh", "-c", f"touch {lock} && stat -c %u {lock} && rm {lock}")

    assert (outcome.returncode, outcome.stdout) == (0, "1001\n"), outcome.stderr
    assert container.locks.stat().st_mode & 0o7777 == 0o1777


@as_root
def test_a_lock_that_somebody_else_holds_keeps_its_owner(container: Container) -> None:
    lock = container.locks / "updates.lock"
    lock.touch()

    container.start("true")

    assert owner(lock) == (0, 0)


@as_root
def test_a_missing_volume_is_said_and_not_made_up_and_the_agent_still_starts(
    container: Container,
) -> None:
    missing = container.data / "nowhere"

    outcome = container.start("echo", "started", data=missing)

    assert (outcome.returncode, outcome.stdout) == (0, "started\n")
    assert "is a volume mounted there?" in outcome.stderr
    assert not missing.exists()


@as_root
def test_what_cannot_be_mended_is_said_and_the_agent_still_starts(container: Container) -> None:
    container.home.write_text("a file where the folder should be")

    outcome = container.start("echo", "started")

    assert (outcome.returncode, outcome.stdout) == (0, "started\n")
    assert f"cannot mend {container.home}" in outcome.stderr


@as_root
def test_a_user_who_is_not_root_stays_who_he_is_and_changes_no_owner(container: Container) -> None:
    as_1002 = ("setpriv", "--reuid=1002", "--regid=1002", "--clear-groups", "--no-new-privs")
    container.home.mkdir()
    python = shutil.which("python3", path="/usr/bin:/bin") or ""

    outcome = subprocess.run(
        [*as_1002, python, "-I", "-", "id", "-u"],
        input=ENTRYPOINT.read_text(encoding="utf-8"),
        env={"PATH": "/usr/bin:/bin", "BASEOS_DATA_DIR": str(container.data)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (outcome.returncode, outcome.stdout) == (0, "1002\n"), outcome.stderr
    assert owner(container.home) == (0, 0)


@as_root
def test_without_the_right_to_become_another_user_nothing_is_started(container: Container) -> None:
    no_setuid = ("setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid")

    outcome = subprocess.run(
        [*no_setuid, sys.executable, "-I", str(ENTRYPOINT), "echo", "started"],
        env={"PATH": "/usr/bin:/bin", "BASEOS_DATA_DIR": str(container.data)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert outcome.returncode == 1
    assert outcome.stdout == ""
    assert "cap_add: [SETUID, SETGID]" in outcome.stderr


def test_a_program_that_is_not_there_is_named(container: Container) -> None:
    outcome = container.start("/nowhere/baserunner")

    assert outcome.returncode == 1
    assert "cannot start /nowhere/baserunner: No such file or directory" in outcome.stderr


@as_root
def test_a_volume_for_neighbours_is_the_agents_with_all_that_is_in_it(container: Container) -> None:
    place = container.data / "api"
    place.mkdir(mode=0o777)
    (place / "lock").touch(mode=0o600)
    (place / "link").symlink_to(container.data)

    outcome = container.start("true", BASEOS_LOCAL_API_DIR=str(place))

    assert outcome.returncode == 0, outcome.stderr
    assert {owner(place), owner(place / "lock"), owner(place / "link")} == {(AGENT, AGENT)}
    assert owner(container.data) == (0, 0)
    assert place.stat().st_mode & 0o7777 == 0o750


@as_root
def test_a_group_of_neighbours_gets_what_the_agent_makes_there(container: Container) -> None:
    place = container.data / "api"
    place.mkdir()

    container.start(
        *("touch", str(place / "token")),
        BASEOS_LOCAL_API_DIR=str(place),
        BASEOS_LOCAL_API_GROUP="4242",
    )

    assert owner(place) == (AGENT, 4242)
    assert owner(place / "token") == (AGENT, 4242)
    assert place.stat().st_mode & 0o7777 == 0o2750


@as_root
def test_a_missing_or_linked_volume_for_neighbours_is_said_and_the_agent_starts(
    container: Container,
) -> None:
    (container.data / "link").symlink_to(container.locks)

    for name in ("nothing", "link"):
        outcome = container.start("echo", "on", BASEOS_LOCAL_API_DIR=str(container.data / name))

        assert outcome.stdout == "on\n"
        assert "is a volume mounted there (BASEOS_LOCAL_API_DIR)?" in outcome.stderr
    assert owner(container.locks) == (AGENT, owner(container.locks)[1])
