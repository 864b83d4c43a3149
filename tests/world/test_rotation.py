"""A node token is replaced without a gap: whatever is cut, lost or restored, one token is left, and it is taken."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from baserunner import spare_tokens
from baserunner.identity import Identity, fingerprint, read_identity, write_identity
from baserunner.node_tokens import NodeTokens
from baserunner.token_rotation import steps
from baserunner.token_rotation.machine import CHART
from baserunner.why import explain_all
from journal.reader import open_reader
from simulators.world import run_virtual
from tests.world.kit import Place, a_place
from tests.world.outside import Afterwards, Instead, altered
from tests.world.test_bad_disk import come_from_the_future

LETTERS = "state.json"
TOKEN = "/baseos/v1/nodes/token"
HEARTBEAT = "/baseos/v1/nodes/heartbeat"


def identity_of(place: Place) -> Identity:
    identity = read_identity(place.home)
    assert identity is not None
    return identity


def one_token_is_left(place: Place, *, generation: int = 2) -> None:
    """Cloudly and the device agree on it, and nobody had to enroll again."""
    identity, known = identity_of(place), place.credential()
    assert identity.node_token is not None
    taken = hashlib.sha256(identity.node_token.get_secret_value().encode()).digest()
    assert (known["token_hash"], known["next_hash"]) == (taken, None)
    assert (known["generation"], identity.token_generation) == (generation, generation)
    assert identity.next_token is None
    assert place.state("enrollment/2") is None


async def rotated(place: Place, *, within_s: float = 900) -> None:
    """Until what Cloudly asked for has come, whatever it took, and one heartbeat more was answered."""
    await place.until(lambda: place.credential()["rotate_asked_at_ms"] is None, within_s=within_s)
    await place.until(lambda: settled(place), within_s=within_s)


def settled(place: Place) -> bool:
    with open_reader(place.home) as reader:
        names = [one.name for one in reader.open_streams()]
    return not any(name.startswith("token-") for name in names) and (
        identity_of(place).next_token is None
    )


# -- the plain story


def test_the_old_one_is_good_until_the_new_one_was_used_and_refused_from_then_on(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            old = identity_of(place).node_token
            assert old is not None

            place.ask_rotation()
            await rotated(place)

            one_token_is_left(place)
            assert place.kinds("token-rotation/1") == [
                "rotation-asked", "token-drawn", "token-announced", "token-switched", "token-proved",
            ]  # fmt: skip
            client = httpx.AsyncClient(transport=place.to_cloudly)
            answer = await client.post(
                f"https://cloudly.example{HEARTBEAT}",
                headers={"authorization": f"Bearer {old.get_secret_value()}"},
            )
            assert (answer.status_code, answer.json()["code"]) == (409, "fenced")

    run_virtual(story)


def test_the_journal_goes_on_arriving_and_so_do_updates(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            place.ask_rotation()
            await rotated(place)

            place.set_release("1.0.0")
            await place.until_state("app-update/1", "succeeded")
            await place.until(lambda: place.core_at_cloudly() == place.core_on_device())

    run_virtual(story)


def test_it_may_be_rotated_again_and_again_and_keeps_a_few_of_before(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()

            for _ in range(6):
                place.ask_rotation()
                await rotated(place)

            one_token_is_left(place, generation=7)
            spares = identity_of(place).spares
            assert [one.generation for one in spares] == [6, 5, 4]
            assert len({fingerprint(one.token) for one in spares}) == spare_tokens.KEPT

    run_virtual(story)


def test_no_token_is_in_the_journal_and_none_in_a_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> list[str]:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            before = place.credential()
            place.ask_rotation()
            await rotated(place)
            place.restore_credential(before)
            await place.until(lambda: place.state("token-fallback/1") == "settled")
            secrets = list(identity_of(place).secrets)
            written = b"".join(
                file.read_bytes()
                for file in place.home.glob("*")
                if file.is_file() and file.name != LETTERS
            )
            assert len(secrets) == 3
            for secret in secrets:
                assert secret.encode() not in written
                assert secret[4:20].encode() not in written
            assert b"token-turned" in written  # the search works
            return secrets

    secrets = run_virtual(story)

    shown = caplog.text + "".join(repr(record.args) for record in caplog.records)
    assert not [secret for secret in secrets if secret in shown]


# -- power cuts


@dataclass
class Cutter:
    """Cuts the power to the agent at the nth point that a rotation passes; `passed` are all of them, in order."""

    place: Place
    nth: int | None = None
    rename_is_lost: bool = False
    """Of a cut between a rename and the sync of its directory: whether the rename was on the disk."""
    passed: list[str] = field(default_factory=list)
    fired: bool = False
    _before: bytes = b""

    def __call__(self, point: str) -> None:
        if self.fired:
            return
        if point == "identity:written":
            self._before = (self.place.home / LETTERS).read_bytes()
        self.passed.append(point)
        if len(self.passed) - 1 == self.nth:
            self.fired = True
            self._cut(point)

    def _cut(self, point: str) -> None:
        place, before = self.place, self.place.data
        place.lives += 1
        shutil.copytree(before, place.data, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
        if self.rename_is_lost and point == "identity:renamed":
            (place.home / LETTERS).write_bytes(self._before)
        place.agent_scope.cancel()


async def rotate_with_a_cut(root: Path, nth: int | None, **options: Any) -> Cutter:
    """A rotation, cut there; the device wakes up later and must find its way."""
    async with a_place(root) as place:
        await place.enrolled()
        cutter = Cutter(place, nth, **options)
        place.points = cutter
        place.ask_rotation()
        if nth is None:
            await rotated(place)
        else:
            await place.until(lambda: cutter.fired)
            await place.agent_ended.wait()
            place.start_agent()
            await rotated(place)
        one_token_is_left(place)
        return cutter


def points_of_a_rotation(root: Path) -> list[str]:
    """From the answer that asks to the proof, and a little further."""
    root.mkdir()

    async def whole() -> Cutter:
        return await rotate_with_a_cut(root, None)

    return run_virtual(whole).passed


def test_cut_at_any_point_it_ends_with_one_token_and_nobody_is_locked_out(tmp_path: Path) -> None:
    points = points_of_a_rotation(tmp_path / "whole")
    for kind in (
        "rotation-asked",
        "token-drawn",
        "token-announced",
        "token-switched",
        "token-proved",
    ):
        assert f"after-commit:{kind}" in points
        assert f"before-commit:{kind}" in points
    assert points.count("identity:renamed") == 2  # drawn, switched
    assert "after-effect:announce" in points

    for nth, point in enumerate(points):
        for lost in (False, True) if point == "identity:renamed" else (False,):
            root = tmp_path / f"cut-{nth}-{lost}"
            root.mkdir()

            async def story(nth: int = nth, *, lost: bool = lost, root: Path = root) -> Cutter:
                return await rotate_with_a_cut(root, nth, rename_is_lost=lost)

            assert run_virtual(story).fired, f"{nth} {point}"


def test_a_token_that_is_not_on_the_disk_before_it_is_told_turns_this_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: state.json is kept in memory while a rotation runs."""
    kept: dict[Path, Identity] = {}

    def read(home: Path) -> Identity | None:
        return kept.get(home) or read_identity(home)

    def write(home: Path, identity: Identity, **_points: object) -> None:
        kept[home] = identity

    monkeypatch.setattr(steps, "read_identity", read)
    monkeypatch.setattr(steps, "write_identity", write)
    proved: list[bool] = []

    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            place.ask_rotation()
            await place.until_state("token-rotation/1", "rotated")
            await place.cut_power_to_agent()
            place.start_agent()
            await place.until_state("enrollment/2", "refused")
            proved.append(place.credential()["generation"] == 2)

    run_virtual(story)

    assert proved == [True]


# -- answers that are lost, and neighbours of another age


@pytest.mark.parametrize("path", [TOKEN, HEARTBEAT])
@pytest.mark.parametrize("times", [1, 3])
def test_a_lost_answer_is_asked_for_again(tmp_path: Path, path: str, times: int) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            place.ask_rotation()
            left = [times]

            async def lose(request: httpx.Request, _answer: httpx.Response) -> None:
                if request.url.path == path and left[0]:
                    left[0] -= 1
                    raise httpx.ReadError("the line was cut", request=request)

            line = Afterwards(place.to_cloudly.inner, lose)
            place.to_cloudly.inner = line
            await rotated(place)

            one_token_is_left(place)
            assert line.fired == times

    run_virtual(story)


def test_an_old_cloudly_has_no_such_route_and_the_token_stays(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            await place.until(lambda: place.to_cloudly.requests.count(f"POST {HEARTBEAT}") > 1)
            mine, inner = identity_of(place), place.to_cloudly.inner

            async def asks(request: httpx.Request, answer: httpx.Response) -> httpx.Response | None:
                """A newer one asked, and a downgrade came in between."""
                if request.url.path != HEARTBEAT or answer.status_code != 200:
                    return None
                return altered(answer, rotate_token=2)

            def unknown(request: httpx.Request) -> httpx.Response | None:
                if request.url.path != TOKEN:
                    return None
                problem = {"title": "There is nothing here.", "status": 404, "code": "not-found"}
                media_type = {"content-type": "application/problem+json"}
                return httpx.Response(404, json=problem, headers=media_type)

            place.to_cloudly.inner = Instead(Afterwards(inner, asks), unknown)
            await place.until_state("token-rotation/1", "dropped")
            place.to_cloudly.inner = inner

            assert identity_of(place).node_token == mine.node_token
            assert identity_of(place).spares == ()
            before = place.kinds("heartbeat/1").count("heartbeat-answered")
            await place.until(
                lambda: place.kinds("heartbeat/1").count("heartbeat-answered") > before
            )

    run_virtual(story)


def test_an_old_agent_does_not_see_the_wish_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_arguments: object) -> None:
        """An agent that does not know the field."""

    monkeypatch.setattr(NodeTokens, "taken", nothing)

    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            place.ask_rotation()
            place.set_release("1.0.0")
            await place.until_state("app-update/1", "succeeded")

            assert place.credential()["generation"] == 1
            assert place.state("token-rotation/1") is None

    run_virtual(story)


# -- restored disks and databases


def test_a_cloudly_restored_from_a_backup_of_before_takes_the_token_of_before(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            before = place.credential()
            for _ in range(3):
                place.ask_rotation()
                await rotated(place)

            place.restore_credential(before)
            await place.until_state("token-fallback/1", "settled")

            one_token_is_left(place, generation=1)
            kinds = place.kinds("token-fallback/1")
            assert kinds.count("token-refused") == 3  # each of the newer ones, once
            place.ask_rotation()
            await rotated(place)
            one_token_is_left(place, generation=2)

    run_virtual(story)


def test_without_falling_back_that_device_is_locked_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control."""

    async def gives_up(*_arguments: object) -> tuple[bool, str, str]:
        return False, "node-unknown", "not known"

    monkeypatch.setattr(NodeTokens, "refused", gives_up)

    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            before = place.credential()
            place.ask_rotation()
            await rotated(place)

            place.restore_credential(before)

            await place.until_state("enrollment/2", "refused")

    run_virtual(story)


def test_the_restore_that_is_undone_finds_the_newer_token_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            before = place.credential()
            place.ask_rotation()
            await rotated(place)
            after = place.credential()
            place.restore_credential(before)
            await place.until_state("token-fallback/1", "settled")

            place.restore_credential(after)
            await place.until_state("token-fallback/2", "settled")

            one_token_is_left(place, generation=2)

    run_virtual(story)


@pytest.mark.parametrize("fact", ["token-drawn", "token-announced", "token-switched"])
def test_a_disk_restored_to_the_middle_of_a_rotation_has_the_new_token_too(
    tmp_path: Path, fact: str
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            kept = keep_identity_at(place, f"after-commit:{fact}")
            place.ask_rotation()
            await rotated(place)

            await place.stop_agent()
            (place.home / LETTERS).write_bytes(kept[0])
            place.start_agent()
            await place.until(lambda: place.state("heartbeat/2") is not None)
            await place.until(lambda: settled(place))

            one_token_is_left(place)

    run_virtual(story)


def keep_identity_at(place: Place, point: str) -> list[bytes]:
    kept: list[bytes] = []

    def keep(name: str) -> None:
        if name == point:
            kept.append((place.home / LETTERS).read_bytes())

    place.points = keep
    return kept


def test_a_disk_restored_to_before_the_rotation_is_a_copy_and_asks_for_a_join_token(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            copy = (place.home / LETTERS).read_bytes()
            place.ask_rotation()
            await rotated(place)

            await place.stop_agent()
            (place.home / LETTERS).write_bytes(copy)
            place.start_agent()
            await place.until_state("enrollment/2", "refused")
            place.give_token(place.make_token())
            await place.until_state("enrollment/2", "enrolled")

            assert place.credential()["generation"] == 3

    run_virtual(story)


def test_a_device_without_a_journal_tries_its_other_tokens_too(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            before = place.credential()
            place.ask_rotation()
            await rotated(place)
            await place.stop_agent()
            come_from_the_future(place.home / "journal.db")
            place.restore_credential(before)
            asked = len(place.to_cloudly.requests)

            place.start_agent()
            await place.until(lambda: len(place.to_cloudly.requests) >= asked + 2)
            await place.until(lambda: place.node().state == "degraded")

    run_virtual(story)


def test_a_restart_between_a_refusal_and_the_next_try_goes_on_there(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            before = place.credential()
            place.ask_rotation()
            await rotated(place)
            place.restore_credential(before)
            cutter = Cutter(place, nth=None)

            def cut(point: str) -> None:
                if point == "after-commit:token-refused" and not cutter.fired:
                    cutter.fired = True
                    cutter._cut(point)

            place.points = cut
            await place.until(lambda: cutter.fired)
            await place.agent_ended.wait()
            assert place.state("token-fallback/1") == "turning"
            place.start_agent()
            await place.until_state("token-fallback/1", "settled")

            one_token_is_left(place, generation=1)

    run_virtual(story)


def test_a_revoked_node_tries_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            place.ask_rotation()
            await rotated(place)

            place.revoke_node()
            await place.until_state("enrollment/2", "refused")

            assert place.state("token-fallback/1") is None

    run_virtual(story)


def test_why_names_what_a_rotation_waits_for(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            busy = httpx.Response(503)
            inner = place.to_cloudly.inner
            place.to_cloudly.inner = Instead(
                inner, lambda request: busy if request.url.path == TOKEN else None
            )
            place.ask_rotation()
            await place.until_state("token-rotation/1", "announcing")

            with open_reader(place.home) as reader:
                (told,) = explain_all(reader, "token-rotation")

            assert told.owner == "cloudly"
            assert "node token's hash" in told.waits_for
            place.to_cloudly.inner = inner
            await rotated(place)

    run_virtual(story)


def test_every_state_of_a_rotation_is_cut_here() -> None:
    """Written out, so that a state that is added must be put somewhere."""
    assert set(CHART.waits) == {"new", "drawing", "announcing", "switching", "proving"}


# -- which tokens a device has


def an_identity(**changes: Any) -> Identity:
    return Identity.model_validate(
        {
            "node_id": "n",
            "enrollment": "enrollment/1",
            "enrollment_secret": "s" * 43,
            "node_token": "bnt_1",
            "token_generation": 1,
            **changes,
        }
    )


def test_no_step_of_a_rotation_loses_a_token_that_may_still_be_taken(tmp_path: Path) -> None:
    one = an_identity()

    drawn = spare_tokens.drawn(one, one.enrollment_secret, 2)
    switched = spare_tokens.switched(drawn)
    back = spare_tokens.turned(switched, switched.spares[0])
    write_identity(tmp_path, back)

    assert [spare.generation for spare in drawn.spares] == [2]
    assert (switched.token_generation, [it.generation for it in switched.spares]) == (2, [1])
    assert (back.token_generation, [it.generation for it in back.spares]) == (1, [2])
    assert read_identity(tmp_path) == back
    assert "bnt_1" not in repr(back)
    assert spare_tokens.switched(one) == one
    assert spare_tokens.without_next(drawn) == one


def test_an_identity_of_an_older_agent_has_no_spares(tmp_path: Path) -> None:
    (tmp_path / LETTERS).write_text(
        '{"node_id":"n","enrollment":"enrollment/1","enrollment_secret":"s","node_token":"t","token_generation":1}'
    )

    identity = read_identity(tmp_path)

    assert identity is not None
    assert identity.spares == ()
