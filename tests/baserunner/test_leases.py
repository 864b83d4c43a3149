"""Leases: what a neighbour may count on, and what it may not keep up."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from baserunner.locks import leases as module
from baserunner.problems import LeaseRefused
from interfaces.local import MOST_LOCKS, Lock, LockState
from journal.problems import NoSpace
from simulators.world import run_virtual
from tests.baserunner.leasing import Device

BOTH = {"updates.lock", "resin-updates.lock"}
Story = Callable[[Device], Awaitable[None]]


@pytest.fixture
def tell(tmp_path: Path) -> Callable[[Story], None]:
    """Run a story on a fresh device, under virtual time."""

    async def run(story: Story) -> None:
        device = Device(tmp_path)
        try:
            await story(device)
        finally:
            device.stop()

    return lambda story: run_virtual(run, story)


Tell = Callable[[Story], None]


def refused(code: str) -> pytest.RaisesExc[LeaseRefused]:
    return pytest.raises(LeaseRefused, check=lambda problem: problem.code == code)


def is_flocked(path: Path) -> bool:
    """Whether somebody who asks the kernel would have to wait."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


# -- holding -------------------------------------------------------------------------------------


def test_a_lease_says_who_holds_it_why_since_when_and_until_when(tell: Tell) -> None:
    async def story(device: Device) -> None:
        held = device.acquire(ttl_s=60)
        await device.world.sleep(20)

        [lock] = device.leases.held()

        assert (lock.owner, lock.reason, lock.state) == ("backup", "nightly backup", LockState.HELD)
        assert lock.lock == held.lock.lock
        assert lock.left_s == pytest.approx(40)
        assert lock.until_ms is not None
        assert lock.until_ms - lock.since_ms == 60_000
        assert "backup holds an update lock" in device.leases.why_not()
        assert "nightly backup" in device.leases.why_not()

    tell(story)


def test_it_ends_by_itself_when_nobody_renews_it(tell: Tell) -> None:
    async def story(device: Device) -> None:
        device.acquire(ttl_s=60)

        await device.world.sleep(59)
        assert device.leases.why_not()
        assert device.leases.next_end_s() == pytest.approx(1)
        await device.world.sleep(1.01)

        assert device.leases.held() == ()
        assert device.leases.why_not() == ""
        assert device.leases.next_end_s() is None
        assert device.kinds() == ["acquired", "expired"]

    tell(story)


def test_a_renewal_counts_from_now_and_not_in_addition(tell: Tell) -> None:
    async def story(device: Device) -> None:
        held = device.acquire(ttl_s=60)
        await device.world.sleep(30)

        lock = device.renew(held, ttl_s=60)

        assert lock.left_s == pytest.approx(60)
        await device.world.sleep(50)
        assert device.renew(held, ttl_s=10).left_s == pytest.approx(10)
        await device.world.sleep(10.01)
        assert device.leases.why_not() == ""

    tell(story)


def test_an_eager_holder_does_not_wear_the_flash(tell: Tell) -> None:
    async def story(device: Device) -> None:
        held = device.acquire(ttl_s=60)

        for _ in range(50):
            await device.world.sleep(0.1)
            device.renew(held, ttl_s=60)

        assert 4 <= device.kinds().count("renewed") <= 6, "one a second, in five of them"
        assert device.leases.held()[0].left_s > 59

    tell(story)


def test_releasing_twice_is_releasing_once(tell: Tell) -> None:
    async def story(device: Device) -> None:
        held = device.acquire()

        first, again = device.release(held), device.release(held)

        assert first == again
        assert first.state is LockState.RELEASED
        assert first.until_ms is None
        assert device.kinds() == ["acquired", "released"]

    tell(story)


def test_what_has_ended_cannot_be_renewed_and_says_how_it_ended(tell: Tell) -> None:
    async def story(device: Device) -> None:
        late, broken = device.acquire(ttl_s=5), device.acquire(ttl_s=600)
        await device.world.sleep(6)
        device.leases.break_(broken.lock.lock, by="uid 0", reason="the update is urgent")

        with refused("not-found") as expired_says:
            device.renew(late)
        with refused("not-found") as broken_says:
            device.renew(broken)

        assert "its time was over" in expired_says.value.words
        assert "broken by uid 0: the update is urgent" in broken_says.value.words
        assert device.leases.held() == ()

    tell(story)


def test_an_operator_breaks_one_by_its_id_or_its_stream_and_that_is_in_the_journal(
    tell: Tell,
) -> None:
    async def story(device: Device) -> None:
        held = device.acquire()
        device.acquire(owner="restore")

        by_id = device.leases.break_(held.lock.lock, by="uid 0", reason="urgent")
        by_stream = device.leases.break_("lock/2", by="uid 7", reason="gone")

        assert by_id.state is by_stream.state is LockState.BROKEN
        assert device.facts("lock/1")[-1].values == {"by": "uid 0", "reason": "urgent"}
        assert device.facts("lock/2")[-1].values == {"by": "uid 7", "reason": "gone"}
        with refused("not-found"):
            device.leases.break_("lock/2", by="uid 7", reason="again")
        with refused("not-found"):
            device.leases.break_("lock/9", by="uid 7", reason="never was")

    tell(story)


# -- whose it is ---------------------------------------------------------------------------------


def test_another_key_neither_renews_nor_releases(tell: Tell) -> None:
    async def story(device: Device) -> None:
        held, other = device.acquire(), device.acquire(owner="restore")

        with refused("forbidden"):
            device.renew(held, key=other.key)
        with refused("forbidden"):
            device.release(held, key=other.key)
        with refused("forbidden"):
            device.release(held, key=SecretStr(""))

        assert len(device.leases.held()) == 2

    tell(story)


def test_the_key_of_what_has_ended_is_asked_for_too(tell: Tell) -> None:
    async def story(device: Device) -> None:
        held = device.acquire()
        device.release(held)

        with refused("forbidden"):
            device.release(held, key=SecretStr("guessed"))

    tell(story)


def test_the_same_request_gets_the_same_lease_and_key_after_a_crash_too(tell: Tell) -> None:
    async def story(device: Device) -> None:
        first = device.acquire(request="ab" * 16)
        again = device.acquire(request="ab" * 16)
        device.crash()
        device.start()

        after = device.acquire(request="ab" * 16)

        assert after.lock.lock == again.lock.lock == first.lock.lock
        assert after.key == again.key == first.key
        assert len(device.leases.held()) == 1

    tell(story)


def test_a_request_whose_lease_has_ended_gets_no_second_one(tell: Tell) -> None:
    async def story(device: Device) -> None:
        device.release(device.acquire(request="ab" * 16))
        device.crash()
        device.start()

        with refused("conflict"):
            device.acquire(request="ab" * 16)

        assert device.leases.held() == ()

    tell(story)


def test_a_request_of_another_owner_is_not_told_the_key(tell: Tell) -> None:
    async def story(device: Device) -> None:
        device.acquire(request="ab" * 16)

        with refused("forbidden"):
            device.acquire(owner="curious", request="ab" * 16)

    tell(story)


def test_neither_the_key_nor_what_gets_it_told_is_in_the_journal(tell: Tell) -> None:
    async def story(device: Device) -> None:
        held = device.acquire(request="c0ffee00" * 4)
        device.renew(held, ttl_s=30)
        device.release(held)

        written = b"".join(path.read_bytes() for path in device.home.glob("journal.db*"))

        assert held.lock.lock.encode() in written, "it is looked for where facts are"
        assert held.key.get_secret_value().encode() not in written
        assert b"c0ffee00" * 4 not in written
        assert held.key.get_secret_value() not in repr(held)

    tell(story)


def test_the_secret_behind_the_keys_is_private_and_a_lost_one_loses_no_lease(tell: Tell) -> None:
    async def story(device: Device) -> None:
        held = device.acquire(request="ab" * 16)
        secret = device.home / "lock-secret"
        assert secret.stat().st_mode & 0o777 == 0o600
        device.crash()
        (device.home / "lock-secret").write_bytes(b"cut short")
        device.start()

        assert device.renew(held, ttl_s=30).left_s == pytest.approx(30)
        with refused("conflict"):
            device.acquire(request="ab" * 16)
        assert device.acquire().key != held.key

    tell(story)


def test_where_no_secret_can_be_kept_there_is_no_lease(tell: Tell) -> None:
    async def story(device: Device) -> None:
        (device.home / "lock-secret").mkdir()

        with refused("unavailable"):
            device.acquire()

        assert device.leases.held() == ()

    tell(story)


# -- when none begins ----------------------------------------------------------------------------


def test_none_begins_while_an_update_is_applied(tell: Tell) -> None:
    async def story(device: Device) -> None:
        device.busy = "app-update/1 is applying"

        with refused("locked-out") as says:
            device.acquire()

        assert "app-update/1 is applying" in says.value.words
        assert device.facts() == []

    tell(story)


def test_a_lease_that_is_held_is_told_again_also_while_none_begins(tell: Tell) -> None:
    async def story(device: Device) -> None:
        first = device.acquire(request="ab" * 16)
        device.busy = "app-update/1 is verifying"

        assert device.acquire(request="ab" * 16).key == first.key

    tell(story)


def test_there_are_only_so_many_and_a_place_is_free_when_one_ends(tell: Tell) -> None:
    async def story(device: Device) -> None:
        held = [device.acquire() for _ in range(MOST_LOCKS)]

        with refused("busy"):
            device.acquire()
        device.release(held[3])

        assert device.acquire(owner="late").lock.owner == "late"

    tell(story)


def test_what_cannot_be_written_is_not_held(tell: Tell) -> None:
    async def story(device: Device) -> None:
        def full(_point: str) -> None:
            raise NoSpace("write a fact", "the disk is full", "free some space")

        device.points = full
        with pytest.raises(NoSpace):
            device.acquire(request="ab" * 16)
        device.points = lambda _: None

        assert device.files() == {"updates.lock"}
        assert device.leases.held() == ()
        assert device.acquire(request="ab" * 16).lock.state is LockState.HELD

    tell(story)


# -- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [-20_000, -1, 1, 20_000])
def test_a_wall_clock_that_jumps_neither_ends_nor_extends_it(tell: Tell, days: int) -> None:
    async def story(device: Device) -> None:
        device.acquire(ttl_s=60)
        await device.world.sleep(10)

        device.jump(days=days)

        assert device.leases.held()[0].left_s == pytest.approx(50)
        await device.world.sleep(50.01)
        assert device.leases.held() == ()

    tell(story)


def test_a_restart_of_the_agent_changes_nothing_about_its_end(tell: Tell) -> None:
    async def story(device: Device) -> None:
        held = device.acquire(ttl_s=600)
        await device.world.sleep(60)
        device.renew(held, ttl_s=600)
        await device.world.sleep(60)
        for _ in range(5):
            device.crash()
            await device.world.sleep(10)
            device.start()

        assert device.leases.held()[0].left_s == pytest.approx(490)
        assert device.kinds() == ["acquired", "renewed"]
        assert device.renew(held, ttl_s=600).state is LockState.HELD

    tell(story)


def test_one_that_passed_its_end_in_the_dark_is_over_at_the_start(tell: Tell) -> None:
    async def story(device: Device) -> None:
        held = device.acquire(ttl_s=60)
        device.crash()
        await device.world.sleep(61)
        device.start()

        assert device.leases.why_not() == ""
        assert device.kinds() == ["acquired", "expired"]
        with refused("not-found"):
            device.renew(held)

    tell(story)


def test_after_a_boot_of_the_host_a_holder_that_comes_back_can_renew(tell: Tell) -> None:
    async def story(device: Device) -> None:
        held = device.acquire(ttl_s=600)
        device.reboot()
        await device.world.sleep(45)
        device.start()

        assert device.leases.held()[0].left_s == pytest.approx(600)
        assert device.renew(held, ttl_s=30).left_s == pytest.approx(30)

    tell(story)


def test_after_a_boot_of_the_host_one_whose_holder_died_ends(tell: Tell) -> None:
    async def story(device: Device) -> None:
        device.acquire(ttl_s=600)
        await device.world.sleep(200)
        device.acquire(owner="restore", ttl_s=30)  # the boot was seen alive at 200 s
        device.reboot()
        device.start()

        assert device.leases.held()[0].left_s == pytest.approx(400)
        await device.world.sleep(400.01)

        assert device.leases.held() == ()

    tell(story)


def test_restarts_after_a_boot_do_not_begin_its_time_again(tell: Tell) -> None:
    async def story(device: Device) -> None:
        device.acquire(ttl_s=100)
        device.reboot()
        for _ in range(9):
            device.start()
            device.leases.expire()
            await device.world.sleep(10)
            device.crash()
        device.start()

        assert device.leases.held()[0].left_s == pytest.approx(10)
        assert device.kinds().count("resumed") == 1

    tell(story)


def test_a_boot_loop_does_not_keep_a_dead_one_alive(tell: Tell) -> None:
    async def story(device: Device) -> None:
        device.acquire(ttl_s=3600)
        boots = 0
        while device.leases.held():
            await device.world.sleep(5)
            device.reboot()
            device.start()
            boots += 1

        assert boots == module.MOST_BOOTS + 1
        assert "since its holder was heard" in device.facts()[-1].values["reason"]

    tell(story)


# -- the file ------------------------------------------------------------------------------------


def test_the_supervisor_sees_it_under_both_names_and_the_kernel_knows_it(tell: Tell) -> None:
    async def story(device: Device) -> None:
        held, other = device.acquire(), device.acquire()

        assert device.files() == BOTH
        assert all(is_flocked(device.locks / name) for name in BOTH)
        device.release(held)
        assert all(is_flocked(device.locks / name) for name in BOTH), "the other one is held"
        device.release(other)

        assert device.files() == {"updates.lock"}, "which the agent itself decides on"
        assert not is_flocked(device.locks / "updates.lock")

    tell(story)


def test_a_restart_takes_both_files_and_flocks_again(tell: Tell) -> None:
    async def story(device: Device) -> None:
        device.acquire(ttl_s=600)
        device.reboot()
        assert device.files() == set()

        device.start()
        device.leases.expire()

        assert all(is_flocked(device.locks / name) for name in BOTH)

    tell(story)


def test_files_that_a_crash_left_of_no_lease_go_at_the_start(tell: Tell) -> None:
    async def story(device: Device) -> None:
        device.acquire(ttl_s=5)
        device.crash()
        await device.world.sleep(6)
        assert device.files() == BOTH

        device.start()
        device.leases.expire()

        assert device.files() == {"updates.lock"}

    tell(story)


@pytest.mark.parametrize("content", ["", "a backup of my own"])
def test_a_lock_that_somebody_else_put_there_stays(tell: Tell, content: str) -> None:
    async def story(device: Device) -> None:
        device.locks.mkdir()
        (device.locks / "resin-updates.lock").write_text(content)

        device.release(device.acquire())

        assert (device.locks / "resin-updates.lock").read_text() == content

    tell(story)


def test_files_that_somebody_deleted_come_again(tell: Tell) -> None:
    async def story(device: Device) -> None:
        device.acquire()
        for name in BOTH:
            (device.locks / name).unlink()

        device.leases.settle()

        assert all(is_flocked(device.locks / name) for name in BOTH)

    tell(story)


def test_a_lease_that_the_supervisor_could_not_see_is_not_given(tell: Tell) -> None:
    async def story(device: Device) -> None:
        device.locks.write_text("in the way")

        with refused("unavailable"):
            device.acquire()

        assert device.facts() == []

    tell(story)


def test_none_is_given_while_another_process_holds_the_flock(tell: Tell) -> None:
    async def story(device: Device) -> None:
        device.file.take()
        descriptor = os.open(device.locks / "updates.lock", os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)

        with refused("unavailable") as says:
            device.acquire()
        os.close(descriptor)

        assert "another process holds it" in says.value.words
        assert device.acquire().lock.state is LockState.HELD

    tell(story)


# -- an agent that was not there -----------------------------------------------------------------


def test_one_that_cannot_be_read_holds_updates_up_for_an_hour_and_no_longer(tell: Tell) -> None:
    async def story(device: Device) -> None:
        device.journal.append("lock/1", "acquired-in-a-new-way", src="new", dst="held")
        assert "cannot be read" in device.leases.why_not()
        assert device.files() == BOTH
        for _ in range(3):
            await device.world.sleep(1000)
            device.crash()
            device.start()

        assert device.leases.why_not()
        await device.world.sleep(601)

        assert device.leases.why_not() == ""
        assert device.files() == {"updates.lock"}
        assert isinstance(device.acquire().lock, Lock)

    tell(story)


def test_who_listens_is_told_of_every_change(tell: Tell) -> None:
    async def story(device: Device) -> None:
        held = device.acquire(ttl_s=60)
        device.renew(held, ttl_s=30)
        await device.world.sleep(31)
        device.leases.expire()

        assert device.changes == 3
        device.leases.expire()
        assert device.changes == 3

    tell(story)
