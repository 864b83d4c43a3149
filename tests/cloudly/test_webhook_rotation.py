"""A webhook gets a new secret, and its receiver misses nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cloudly.problems import BadOrder, StoreUnavailable
from cloudly.service import webhooks as service
from cloudly.store.audit import By
from cloudly.webhooks import secrets_file, signing
from cloudly.webhooks.secrets_file import Former, Kept, SecretsUnreadable, rotated
from interfaces.world import RealWorld, now_ms
from tests.cloudly.api_given import operator
from tests.cloudly.given import Plane, code_of
from tests.cloudly.receivers import Loopback, Receiver, answers, verified
from tests.cloudly.test_command_line import Command
from tests.cloudly.test_webhooks import Post

pytestmark = pytest.mark.anyio

both_engines = pytest.mark.both_engines
DAY_S = 86_400
OLD, NEW, NEWEST = (signing.PREFIX + letter * 42 + "A=" for letter in "abc")


def secrets_of(receiver: Receiver) -> list[str]:
    """What signed the last request, one after the other."""
    return receiver.got[-1].headers["webhook-signature"].split(" ")


def rotate(post: Post, secret: str, *, overlap_s: int = DAY_S) -> None:
    by = By("ada", now_ms(post.plane.world))
    rotation = service.Rotation(post.plane.directory, "crm", secret, overlap_s=overlap_s, by=by)
    post.plane.store.write_now(rotation.decide)


@both_engines
async def test_during_the_overlap_a_receiver_with_either_secret_knows_us_and_afterwards_one_with_the_new(
    plane: Plane,
) -> None:
    post = Post(plane)
    receiver = post.hook("crm")
    old = receiver.secret

    rotate(post, NEW)
    post.tell("node.first")
    await post.delivering.tick()  # with the old one: it verifies each request
    receiver.secret = NEW
    post.tell("node.second")
    await post.delivering.tick()
    both = secrets_of(receiver)
    await plane.world.sleep(DAY_S)
    post.tell("node.third")
    await post.delivering.tick()
    got = receiver.got[-1]

    assert receiver.kinds == ["node.first", "node.second", "node.third"]
    assert len(set(both)) == 2
    assert all(one.startswith("v1,") for one in both)
    assert len(secrets_of(receiver)) == 1
    with pytest.raises(AssertionError):
        verified(old, got.headers, got.body, now_s=now_ms(plane.world) / 1000)


@both_engines
async def test_at_once_nothing_of_before_signs_any_more(plane: Plane) -> None:
    post = Post(plane)
    receiver = post.hook("crm")

    rotate(post, NEW)
    rotate(post, NEWEST, overlap_s=0)
    receiver.secret = NEWEST
    post.tell("node.odd")
    await post.delivering.tick()

    assert len(secrets_of(receiver)) == 1
    kept = (plane.directory / secrets_file.FILE).read_text()
    assert NEW not in kept
    assert secrets_file.of(plane.directory, "crm") == Kept(NEWEST)


def test_each_secret_signs_until_its_own_time_and_not_a_millisecond_longer() -> None:
    first = rotated(Kept(OLD, allow_private=True), NEW, overlap_ms=100, now_ms=1_000)
    second = rotated(first, NEWEST, overlap_ms=1_000, now_ms=1_050)

    assert second.secrets_at(1_099) == (NEWEST, OLD, NEW)
    assert second.secrets_at(1_100) == (NEWEST, NEW)
    assert second.secrets_at(2_050) == (NEWEST,)
    assert second.allow_private
    assert rotated(second, NEWEST, overlap_ms=9_999, now_ms=9_999) == second  # decided twice
    assert rotated(second, OLD, overlap_ms=1, now_ms=3_000).former == (Former(NEWEST, 3_001),)


def test_so_many_sign_at_a_time_and_no_more() -> None:
    kept = Kept(OLD)
    for number in range(secrets_file.MOST_FORMER):
        kept = rotated(kept, f"{NEW}{number}", overlap_ms=DAY_S * 1000, now_ms=0)

    with pytest.raises(BadOrder, match="4 secrets sign already") as refused:
        rotated(kept, NEWEST, overlap_ms=1, now_ms=1)
    assert rotated(kept, NEWEST, overlap_ms=0, now_ms=1).former == ()
    assert "whsec_" not in str(refused.value) + repr(kept)


@both_engines
async def test_by_the_api_it_is_shown_once_and_says_how_long_the_old_one_signs(
    plane: Plane,
) -> None:
    who, post = operator(plane), Post(plane)
    receiver = post.hook("crm")

    made = await who.does("POST", "/webhooks/crm/rotate", {"overlap_s": 60})
    gone = await who("POST", "/webhooks/nobody/rotate", json={})
    odd = [
        await who("POST", "/webhooks/crm/rotate", json={"overlap_s": seconds})
        for seconds in (-1, 31 * DAY_S, "1d", None)
    ]
    seen = [await who("GET", path) for path in ("/webhooks", "/webhooks/crm", "/audit")]

    assert made["old_until_ms"] == now_ms(plane.world) + 60_000
    assert secrets_file.of(plane.directory, "crm").secrets_at(0) == (
        made["secret"],
        receiver.secret,
    )
    assert code_of(gone) == (404, "not-found")
    assert [code_of(one) for one in odd] == [(422, "malformed")] * 4
    assert not any(made["secret"] in one.text or receiver.secret in one.text for one in seen)
    assert "webhook.rotated" in seen[2].text


@both_engines
async def test_a_secret_that_nobody_was_shown_does_not_sign(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    who, post = operator(plane), Post(plane)
    receiver = post.hook("crm")
    await who.get("/self")
    really = plane.store.write

    async def fails(work: Any) -> Any:
        def and_then_the_disk_is_full(db: Any) -> None:
            work(db)
            assert secrets_file.of(plane.directory, "crm").former
            raise StoreUnavailable("nothing was written: the disk is full")

        return await really(and_then_the_disk_is_full)

    with monkeypatch.context() as patch:
        patch.setattr(plane.store, "write", fails)
        answer = await who("POST", "/webhooks/crm/rotate", json={})

    assert code_of(answer) == (503, "busy")
    assert secrets_file.of(plane.directory, "crm") == Kept(receiver.secret)
    assert plane.rows("audit") == []


def test_what_is_taken_back_is_ones_own_secret_alone(tmp_path: Path) -> None:
    secrets_file.add(tmp_path, "crm", Kept(NEWEST))

    secrets_file.take_back(tmp_path, "crm", NEW, Kept(OLD))

    assert secrets_file.of(tmp_path, "crm") == Kept(NEWEST)


@pytest.mark.parametrize(
    "former", ["x", [{}], [{"secret": "whsec_x", "until_ms": 1}], [{"secret": OLD}], 7]
)
def test_a_file_with_a_broken_former_secret_is_not_believed(tmp_path: Path, former: object) -> None:
    known = {"crm": {"secret": NEW, "allow_private": False, "former": former}}
    (tmp_path / secrets_file.FILE).write_text(json.dumps(known))

    with pytest.raises(SecretsUnreadable) as refused:
        secrets_file.of(tmp_path, "crm")

    assert "whsec_" not in str(refused.value)


@pytest.mark.skipif(sys.platform != "linux", reason="a real server on loopback")
def test_an_operator_rotates_and_the_next_request_is_signed_by_both(directory: Path) -> None:
    run, receiver = Command(directory), Loopback(answers(200))
    old = run("webhook", "create", "crm", receiver.url, "--allow-private").stdout.strip()

    new = run("webhook", "rotate", "crm", "--overlap", "1h")
    run("webhook", "test", "crm")
    newest = run("webhook", "rotate", "crm", "--at-once").stdout.strip()
    run("webhook", "test", "crm")
    receiver.close()

    now_s = RealWorld().now().timestamp()
    (both, body), (one, last) = receiver.got
    for secret in (old, new.stdout.strip()):
        assert verified(secret, both, body, now_s=now_s)["type"] == "webhook.test"
    assert verified(newest, one, last, now_s=now_s)
    for secret in (old, new.stdout.strip()):
        with pytest.raises(AssertionError):
            verified(secret, one, last, now_s=now_s)
    assert "beside it for 1h" in new.stderr
    assert "whsec_" not in new.stderr
    for words in (("--overlap", "31d"), ("--overlap", "never"), ("--overlap", "soon")):
        run("webhook", "rotate", "crm", *words, expect=2)
    assert "no webhook 'other'" in run("webhook", "rotate", "other", expect=1).stderr
    assert secrets_file.of(directory, "crm").secret == newest
