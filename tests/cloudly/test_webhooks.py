"""Webhooks are told what happened: signed, at least once, in order, and whatever a receiver does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import anyio
import httpx
import pytest

from cloudly.problems import BadOrder, StoreUnavailable
from cloudly.store import outbox, webhooks
from cloudly.store.rollouts import lease
from cloudly.webhooks import pace, secrets_file, signing
from cloudly.webhooks.deliver import LEASE, Delivering
from interfaces.world import now_ms
from tests.cloudly.given import Plane
from tests.cloudly.receivers import Receiver

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

DAY_S = 86_400.0


class Switchboard(httpx.AsyncBaseTransport):
    """Every host is one of the receivers; a name that is none cannot be reached."""

    def __init__(self, receivers: dict[str, Receiver]) -> None:
        self._receivers = receivers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        receiver = self._receivers.get(request.url.host)
        if receiver is None:
            raise httpx.ConnectError("All connection attempts failed")
        return await httpx.ASGITransport(app=receiver).handle_async_request(request)


@dataclass
class Post:
    """A control plane and its receivers."""

    plane: Plane
    receivers: dict[str, Receiver] = field(default_factory=dict)
    hooks: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.delivering = self.another()

    def another(self) -> Delivering:
        """Delivering as a process of its own does it."""
        return Delivering(
            self.plane.store,
            self.plane.world,
            self.plane.settings,
            lambda _private: Switchboard(self.receivers),
        )

    def hook(self, name: str, *kinds: str) -> Receiver:
        world, store = self.plane.world, self.plane.store
        secret, now = signing.new_secret(world), now_ms(world)
        secrets_file.add(self.plane.directory, name, secrets_file.Kept(secret))
        self.hooks[name] = store.write_now(
            lambda db: webhooks.create(db, name, f"https://{name}.example/hook", kinds, now)
        )
        self.receivers[f"{name}.example"] = Receiver(world, secret)
        return self.receivers[f"{name}.example"]

    def tell(self, *kinds: str) -> list[int | None]:
        now = now_ms(self.plane.world)
        return [
            self.plane.store.write_now(
                lambda db, kind=kind: outbox.tell(db, kind, {"node": "n1"}, now)  # type: ignore[misc]
            )
            for kind in kinds
        ]

    async def run(self, seconds: float, *, every_s: float = 1.0) -> None:
        """The recurring job, for so long."""
        until = self.plane.world.monotonic() + seconds
        while self.plane.world.monotonic() < until:
            await self.delivering.tick()
            await self.plane.world.sleep(every_s)

    def deliveries(self, name: str) -> list[dict[str, Any]]:
        rows = [row for row in self.plane.rows("delivery") if row["webhook"] == self.hooks[name]]
        return sorted(rows, key=lambda row: int(row["event"]))

    def shown(self, name: str) -> dict[str, Any]:
        return dict(self.plane.store.read_now(lambda db: webhooks.find(db, name)))


@pytest.fixture
def post(plane: Plane) -> Post:
    return Post(plane)


async def test_what_happened_is_told_in_order_and_signed(post: Post) -> None:
    receiver = post.hook("crm")
    device = await post.plane.device().enroll()
    deployment = post.plane.release("1.0.0")
    await device.tell("app-update/1", "offered", "succeeded", deployment=deployment)

    await post.delivering.tick()

    assert receiver.kinds == ["node.enrolled", "deployment.succeeded"]  # and each was verified
    first = receiver.got[0]
    assert first.event["data"]["node"] == device.node_id
    assert first.event["timestamp"].endswith("Z")
    assert first.headers["content-type"] == "application/json"
    done = [(row["status"], row["attempts"], row["next_at_ms"]) for row in post.deliveries("crm")]
    assert done == [(204, 1, None)] * 2
    await post.delivering.tick()
    assert len(receiver.got) == 2  # once


async def test_a_signature_is_of_this_secret_id_time_and_body(post: Post) -> None:
    receiver = post.hook("crm")
    receiver.secret = signing.new_secret(post.plane.world)  # it expects another one
    post.tell("node.odd")

    with pytest.raises((AssertionError, ExceptionGroup)):
        await post.delivering.tick()

    assert receiver.got == []


async def test_a_kill_between_sending_and_marking_sends_it_again_with_the_same_id(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = post.hook("crm")
    post.tell("node.odd")

    async def killed(*_: object) -> None:
        raise StoreUnavailable("the process ended here")

    with monkeypatch.context() as patch:
        patch.setattr(post.delivering, "_taken", killed)
        with pytest.raises(StoreUnavailable):
            await post.delivering.tick()
    assert [row["done_at_ms"] for row in post.deliveries("crm")] == [None]
    await post.plane.world.sleep(lease.LASTS_MS / 1000)  # the dead one's lease
    await post.another().tick()

    assert len(receiver.got) == 2
    assert len(set(receiver.ids)) == 1
    assert [row["status"] for row in post.deliveries("crm")] == [204]


async def test_a_receiver_that_is_down_gets_everything_in_order_when_it_is_back(post: Post) -> None:
    receiver = post.hook("crm")
    gone = post.receivers.pop("crm.example")
    events = post.tell(*(f"node.n{number}" for number in range(8)))
    await post.run(2 * 3600, every_s=30)
    assert receiver.got == []
    attempts = sum(row["attempts"] for row in post.deliveries("crm"))

    post.receivers["crm.example"] = gone
    await post.run(1900, every_s=5)

    told_first = list(dict.fromkeys(receiver.ids))
    assert len(told_first) == len(events)
    assert receiver.kinds[-7:] == sorted(receiver.kinds[-7:])  # all but the one that probed
    assert len(receiver.got) == 8
    assert attempts < 60  # and it was not hammered while it was down


async def test_an_event_that_a_receiver_cannot_take_steps_aside_and_is_given_up_after_three_days(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = post.hook("crm")
    receiver.answer = lambda got: 500 if got.kind == "node.poison" else 200
    post.tell("node.first", "node.poison", "node.third")

    await post.run(60, every_s=5)
    held_up = [one for one in receiver.kinds if one != "node.poison"]
    await post.run(3600, every_s=20)
    passed = [one for one in receiver.kinds if one != "node.poison"]
    await post.run(3.3 * DAY_S, every_s=1800)

    assert held_up == ["node.first"]  # order first
    assert passed == ["node.first", "node.third"]  # but not for ever
    assert receiver.kinds.count("node.third") == 1
    poison = post.deliveries("crm")[1]
    assert poison["next_at_ms"] is None
    assert "given up after three days: the receiver answered 500" in poison["problem"]
    assert 10 < poison["attempts"] < 40
    assert post.shown("crm")["given_up"] == 1
    assert any("given up" in line.message for line in caplog.records)


async def test_waits_grow_and_are_not_all_the_same(post: Post) -> None:
    receiver = post.hook("crm")
    receiver.answer = lambda _got: 503
    post.tell("node.odd")

    await post.run(1200)

    at = [one.at_s for one in receiver.got]
    waits = [later - before for before, later in pairwise(at)]
    assert len(waits) == 4
    for wait, step in zip(waits, pace.STEPS_S, strict=False):
        assert step * 0.8 <= wait <= step * 1.2 + 2
    assert waits[0] != 5.0


async def test_a_receiver_may_ask_for_time_but_not_for_ever(post: Post) -> None:
    receiver = post.hook("crm")
    receiver.answer = lambda _got: 429
    receiver.headers = [(b"retry-after", b"900")]
    post.tell("node.odd")
    await post.delivering.tick()
    asked_ms = post.deliveries("crm")[0]["next_at_ms"] - now_ms(post.plane.world)
    receiver.headers = [(b"retry-after", b"999999")]
    await post.plane.world.sleep(901)
    await post.delivering.tick()
    long_ms = post.deliveries("crm")[0]["next_at_ms"] - now_ms(post.plane.world)

    assert asked_ms == pytest.approx(900_000, abs=1000)
    assert long_ms == pytest.approx(3_600_000, abs=1000)


async def test_410_disables_it_visibly_and_nothing_more_is_sent_or_queued(post: Post) -> None:
    receiver = post.hook("crm")
    receiver.answer = lambda _got: 410
    post.tell("node.first", "node.second")
    await post.delivering.tick()
    post.tell("node.third")
    await post.run(3600, every_s=60)

    assert receiver.kinds == ["node.first"]
    assert len(post.deliveries("crm")) == 2
    shown = post.shown("crm")
    assert "410" in shown["disabled_why"]

    receiver.answer = lambda _got: 200
    now = now_ms(post.plane.world)
    post.plane.store.write_now(lambda db: webhooks.enable(db, shown["id"], now))
    await post.delivering.tick()
    assert receiver.kinds == ["node.first", "node.first", "node.second"]


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 500])
async def test_anything_but_2xx_is_a_failure_and_a_redirect_is_not_followed(
    post: Post, status: int
) -> None:
    receiver, elsewhere = post.hook("crm"), post.hook("elsewhere", "no.kind")
    receiver.answer = lambda _got: status
    receiver.headers = [(b"location", b"https://elsewhere.example/hook")]
    post.tell("node.odd")

    await post.delivering.tick()

    assert elsewhere.got == []
    row = post.deliveries("crm")[0]
    assert (row["status"], row["problem"]) == (status, f"the receiver answered {status}")
    assert row["next_at_ms"] is not None


async def test_one_that_hangs_holds_up_nobody_but_itself(post: Post) -> None:
    slow, quick = post.hook("slow"), post.hook("quick")
    slow.hangs_s = 3600
    post.tell("node.first")
    world, began = post.plane.world, post.plane.world.now().timestamp()

    async with anyio.create_task_group() as group:
        group.start_soon(post.delivering.tick)
        await world.sleep(3)
        post.tell("node.second")

    assert quick.kinds == ["node.first", "node.second"]
    assert quick.got[1].at_s - began < 6  # not after the 15 s of the other
    assert slow.kinds == ["node.first"]
    assert "no answer within 15 s" in post.deliveries("slow")[0]["problem"]
    assert world.now().timestamp() - began < 25


async def test_many_that_hang_are_not_spoken_with_all_at_once(post: Post) -> None:
    receivers = [post.hook(f"r{number}") for number in range(20)]
    shared = receivers[0]
    for name in list(post.receivers):
        post.receivers[name] = shared  # counted together
    shared.hangs_s = 3600
    post.tell("node.odd")
    for name in post.hooks:  # one secret for the shared one
        secrets_file.add(post.plane.directory, name, secrets_file.Kept(shared.secret))

    await post.delivering.tick()

    assert shared.most_open == 16
    assert len(shared.got) == 20


async def test_of_two_processes_one_delivers_until_it_is_gone(post: Post) -> None:
    receiver = post.hook("crm")
    receiver.answer = lambda _got: 500
    other = post.another()
    post.tell("node.first")
    await post.delivering.tick()
    await post.plane.world.sleep(5.9)  # due again, and the first one's lease holds
    await other.tick()
    held = len(receiver.got)
    await post.plane.world.sleep(1)
    await other.tick()

    assert (held, len(receiver.got)) == (1, 2)
    assert [row["name"] for row in post.plane.rows("lease")] == [LEASE]


async def test_without_its_secret_nothing_is_sent_and_the_problem_names_the_file(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = post.hook("crm")
    secrets_file.remove(post.plane.directory, "crm")
    post.tell("node.odd")

    await post.delivering.tick()

    assert receiver.got == []
    assert "webhooks.json" in caplog.text + str(caplog.records[-1].__dict__.get("values"))
    if (
        post.plane.store.is_shared
    ):  # another server may have it: no attempt is lost, and no lease held
        assert [row["attempts"] for row in post.plane.rows("delivery")] == [0]
        assert all(row["owner"] == "" or row["until_ms"] == 0 for row in post.plane.rows("lease"))
    else:
        assert "webhooks.json" in post.deliveries("crm")[0]["problem"]


async def test_replay_tells_again_what_it_wants_with_the_same_ids(post: Post) -> None:
    receiver = post.hook("crm", "node.*")
    post.tell("node.first")
    await post.plane.world.sleep(3600)
    post.tell("node.second", "deployment.odd")
    await post.delivering.tick()
    before = receiver.ids
    hook = post.plane.store.read_now(lambda db: webhooks.find(db, "crm"))
    now = now_ms(post.plane.world)

    recent = post.plane.store.write_now(
        lambda db: webhooks.replay_since(db, hook, now - 60_000, now)
    )
    await post.delivering.tick()
    post.plane.store.write_now(lambda db: webhooks.replay(db, hook, 1, now))
    await post.delivering.tick()

    assert before == list(dict.fromkeys(before))
    assert recent == 1
    assert receiver.kinds == ["node.first", "node.second", "node.second", "node.first"]
    assert receiver.ids == [*before, before[1], before[0]]
    with pytest.raises(BadOrder, match="no event 99"):
        post.plane.store.write_now(lambda db: webhooks.replay(db, hook, 99, now))


async def test_a_replayed_event_has_three_days_of_its_own(post: Post) -> None:
    receiver = post.hook("crm")
    post.tell("node.odd")
    await post.plane.world.sleep(10 * DAY_S)
    receiver.answer = lambda _got: 500
    hook = post.plane.store.read_now(lambda db: webhooks.find(db, "crm"))
    now = now_ms(post.plane.world)
    post.plane.store.write_now(lambda db: webhooks.replay(db, hook, 1, now))

    await post.delivering.tick()

    assert post.deliveries("crm")[0]["next_at_ms"] is not None


async def test_after_a_restore_another_event_of_the_same_number_has_another_id() -> None:
    one = signing.Event(7, 1_700_000_000_000, "node.revoked", '{"node":"a"}')
    other = signing.Event(7, 1_700_000_009_000, "node.revoked", '{"node":"b"}')

    assert one.id != other.id
    assert "." not in one.id  # a dot would blur what is signed
    assert json.loads(one.body)["data"] == {"node": "a"}


async def test_a_deleted_webhook_is_told_nothing_and_leaves_nothing(post: Post) -> None:
    receiver = post.hook("crm")
    post.tell("node.odd")
    number = post.hooks["crm"]

    post.plane.store.write_now(lambda db: webhooks.delete(db, number))
    await post.delivering.tick()

    assert receiver.got == []
    assert post.plane.rows("delivery") == []


async def test_a_database_that_is_away_is_told_to_who_runs_the_job(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.hook("crm")
    post.tell("node.odd")

    async def write(_work: object) -> Any:
        raise StoreUnavailable("gone")

    await post.delivering.tick()
    post.tell("node.again")
    monkeypatch.setattr(post.plane.store, "write", write)
    with pytest.raises(StoreUnavailable):
        await post.delivering.tick()
    monkeypatch.undo()
    await post.delivering.tick()

    assert [row["status"] for row in post.deliveries("crm")] == [204, 204]


async def test_the_server_does_it_again_and_again(post: Post) -> None:
    post.hook("crm")
    post.plane.app.state.delivering._make = lambda _private: Switchboard(post.receivers)
    post.tell("node.odd")

    await post.plane.app.state.recurring.once("webhooks")

    assert [row["status"] for row in post.deliveries("crm")] == [204]
    assert (await post.plane.client.get("/readyz")).status_code == 200
