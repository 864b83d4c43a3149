"""Webhooks by the admin API: as on the command line, with its rules for addresses, and no secret but once."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpcore
import pytest
from starlette.routing import Mount

from cloudly.access import Role
from cloudly.webhooks import secrets_file
from interfaces.world import now_ms
from tests.cloudly.api_given import Operator, operator
from tests.cloudly.given import UUID, Plane, code_of
from tests.cloudly.receivers import Receiver, verified
from tests.cloudly.test_api_paging import walk
from tests.cloudly.test_webhooks import Post, Switchboard

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

URL = "https://there.example/services/canary-path"
PUBLIC = ("93.184.216.34",)


class Network:
    """What names mean, and who is there."""

    def __init__(self, plane: Plane) -> None:
        self.asked: list[str] = []
        self.means: dict[str, Sequence[str]] = {"there.example": PUBLIC}
        self.post = Post(plane)
        self.private: list[bool] = []
        (mount,) = [one for one in plane.app.routes if isinstance(one, Mount)]
        state: Any = mount.app.state  # type: ignore[attr-defined]  # it is ours
        state.desk = replace(state.desk, meanings=self._meanings, ways=self._way)

    async def _meanings(self, host: str, _port: int, _patience_s: float | None) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.means:
            raise httpcore.ConnectError("its name means no address")
        return self.means[host]

    def _way(self, allow_private: bool, _root_ca: object) -> Switchboard:  # noqa: FBT001 - as the desk asks it
        self.private.append(allow_private)
        return Switchboard(self.post.receivers)

    def receiver(self, made: dict[str, Any], host: str = "there.example") -> Receiver:
        receiver = Receiver(self.post.plane.world, made["secret"])
        self.post.receivers[host] = receiver
        return receiver


@pytest.fixture
def network(plane: Plane) -> Network:
    return Network(plane)


async def made(who: Operator, name: str = "crm", **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = await who.does("POST", "/webhooks", {"name": name, "url": URL} | more)
    return found


async def test_a_webhook_that_is_made_by_the_api_is_told_what_happens(
    plane: Plane, network: Network
) -> None:
    who = operator(plane)
    hook = await made(who, kinds=["node.*"])
    receiver = network.receiver(hook)

    await plane.device().enroll()
    await network.post.delivering.tick()
    shown = await who.get("/webhooks/crm")
    (delivery,) = (await who.get("/webhooks/crm/deliveries"))["items"]

    assert receiver.kinds == ["node.enrolled"]  # and its signature was verified
    assert hook["secret"].startswith("whsec_")
    assert (shown["delivered"], shown["waiting"], shown["state"]) == (1, 0, "enabled")
    assert (delivery["kind"], delivery["state"], delivery["status"]) == (
        "node.enrolled",
        "delivered",
        204,
    )
    assert network.asked == ["there.example"]


async def test_the_secret_is_shown_once_and_is_at_rest_in_its_file_alone(
    plane: Plane,
    network: Network,  # noqa: ARG001 - a name must mean something
) -> None:
    who = operator(plane)
    secret = (await made(who))["secret"]

    answers = [
        await who("GET", path)
        for path in ("/webhooks", "/webhooks/crm", "/webhooks/crm/deliveries", "/audit")
    ]

    assert all(one.status_code == 200 and secret not in one.text for one in answers)
    file = plane.directory / secrets_file.FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secret in file.read_text()
    assert plane.at_rest().count(secret.encode()) == 1


async def test_a_path_that_may_be_a_secret_is_shown_to_who_may_write_webhooks_alone(
    plane: Plane,
    network: Network,  # noqa: ARG001 - a name must mean something
) -> None:
    admin, viewer = operator(plane), operator(plane, Role.VIEWER)
    await made(admin)

    seen = [await viewer("GET", path) for path in ("/webhooks", "/webhooks/crm", "/audit")]

    assert all("canary" not in one.text for one in seen)
    assert seen[1].json()["receiver"] == "https://there.example"
    assert seen[1].json()["url"] is None
    assert (await admin.get("/webhooks/crm"))["url"] == URL
    refused = await operator(plane, Role.OPERATOR)("POST", "/webhooks", json={})
    assert code_of(refused) == (403, "not-allowed")


@pytest.mark.parametrize(
    "means", [("127.0.0.1",), ("10.0.0.7",), ("93.184.216.34", "169.254.169.254"), ("::1",)]
)
async def test_a_name_that_means_an_address_of_ours_is_refused_unless_that_is_meant(
    plane: Plane, network: Network, means: tuple[str, ...]
) -> None:
    who = operator(plane)
    network.means["there.example"] = means

    refused = await who("POST", "/webhooks", json={"name": "crm", "url": URL})
    nowhere = await who("POST", "/webhooks", json={"name": "crm", "url": "https://gone.example/"})
    before = plane.rows("webhook")
    await made(who, allow_private=True)

    assert code_of(refused) == code_of(nowhere) == (409, "conflict")
    assert "allow_private" in refused.json()["detail"]
    for one in (refused, nowhere):
        assert not any(word in one.text for word in (*means, "example", "canary"))
    assert before == []
    assert secrets_file.read(plane.directory)["crm"].allow_private
    assert network.asked == ["there.example", "gone.example"]  # the last one was not looked at


@pytest.mark.parametrize(
    "url",
    ["ftp://there.example/canary", "https://name:canary@there.example/", "https://there.example/#canary",
     "https://th\u00e9re.example/canary", "there.example/canary", "https://there.example:0/canary",
     "https://there.example/canary\n", "", "x" * 3000],
)  # fmt: skip
async def test_what_is_no_usable_url_is_refused_as_on_the_command_line(
    plane: Plane, network: Network, url: str
) -> None:
    answer = await operator(plane)("POST", "/webhooks", json={"name": "crm", "url": url})

    assert code_of(answer) == (422, "malformed")
    assert "body.url" in answer.json()["detail"]
    assert "canary" not in answer.text
    assert network.asked == []
    assert not (plane.directory / secrets_file.FILE).exists()


@pytest.mark.parametrize(
    "kinds", [["Node"], ["node"], ["node.*.x"], [""], ["*", "\x00"], ["a.b"] * 101]
)
async def test_a_kind_that_is_none_is_refused(plane: Plane, kinds: list[str]) -> None:
    body = {"name": "crm", "url": URL, "kinds": kinds}

    assert code_of(await operator(plane)("POST", "/webhooks", json=body)) == (422, "malformed")


async def test_of_two_of_one_name_the_first_keeps_its_secret(
    plane: Plane,
    network: Network,  # noqa: ARG001 - a name must mean something
) -> None:
    who = operator(plane)
    secret = (await made(who))["secret"]

    again = await who("POST", "/webhooks", json={"name": "crm", "url": URL})

    assert code_of(again) == (409, "conflict")
    assert secrets_file.of(plane.directory, "crm").secret == secret


async def test_a_test_reaches_the_receiver_at_once_and_tells_what_it_answered(
    plane: Plane, network: Network
) -> None:
    who = operator(plane)
    hook = await made(who)
    receiver = network.receiver(hook)

    taken = await who.does("POST", "/webhooks/crm/test")
    receiver.answer = lambda _got: 500
    refused = await who.does("POST", "/webhooks/crm/test")
    network.post.receivers.clear()
    gone = await who.does("POST", "/webhooks/crm/test")

    assert taken == {"taken": True, "status": 204, "problem": ""}
    assert (refused["taken"], refused["status"]) == (False, 500)
    assert (gone["taken"], gone["status"]) == (False, None)
    assert "canary" not in gone["problem"]
    assert network.private == [False] * 3
    got = receiver.got[0]
    now_s = now_ms(plane.world) / 1000
    assert verified(hook["secret"], got.headers, got.body, now_s=now_s)["type"] == "webhook.test"


async def test_a_test_where_the_secret_is_not_names_the_file_and_sends_nothing(
    plane: Plane, network: Network
) -> None:
    who = operator(plane)
    receiver = network.receiver(await made(who))
    secrets_file.remove(plane.directory, "crm")

    answer = await who("POST", "/webhooks/crm/test")

    assert code_of(answer) == (409, "conflict")
    assert "webhooks.json" in answer.json()["detail"]
    assert receiver.got == []


async def test_one_that_is_disabled_is_told_nothing_until_it_is_enabled_and_replayed(
    plane: Plane, network: Network
) -> None:
    who = operator(plane)
    receiver = network.receiver(await made(who, kinds=["node.*"]))
    began = now_ms(plane.world)

    off = await who.does("POST", "/webhooks/crm/disable")
    await plane.device().enroll()
    early = await who("POST", "/webhooks/crm/replay", json={"since_ms": began})
    on = await who.does("POST", "/webhooks/crm/enable")
    await network.post.delivering.tick()
    before = receiver.kinds
    many = await who.does("POST", "/webhooks/crm/replay", {"since_ms": began})
    await network.post.delivering.tick()
    one = await who.does("POST", "/webhooks/crm/replay", {"event": 1})

    assert (off["state"], off["disabled_why"]) == ("disabled", "by the operator")
    assert on["state"] == "enabled"
    assert code_of(early) == (409, "conflict")
    assert (before, receiver.kinds) == ([], ["node.enrolled"])
    assert (many, one) == ({"events": 1}, {"events": 1})
    for body in ({}, {"since_ms": 1, "event": 1}, {"event": 0}, {"since_ms": -1}):
        answer = await who("POST", "/webhooks/crm/replay", json=body)
        assert code_of(answer) == (422, "malformed")
    gone = await who("POST", "/webhooks/crm/replay", json={"event": 99})
    assert code_of(gone) == (409, "conflict")


async def test_a_webhook_that_is_deleted_takes_its_secret_along_and_no_other(
    plane: Plane,
    network: Network,  # noqa: ARG001 - a name must mean something
) -> None:
    who = operator(plane)
    gone, stays = await made(who), await made(who, "desk")

    answer = await who("DELETE", "/webhooks/crm")
    again = await who("DELETE", "/webhooks/crm")

    assert (answer.status_code, answer.content) == (204, b"")
    assert code_of(again) == (404, "not-found")
    kept = (plane.directory / secrets_file.FILE).read_text()
    assert gone["secret"] not in kept
    assert stays["secret"] in kept


async def test_deliveries_come_in_pages_the_newest_first(plane: Plane, network: Network) -> None:
    who = operator(plane)
    receiver = network.receiver(await made(who))
    receiver.answer = lambda got: 204 if got.kind == "node.even" else 500
    network.post.tell("node.even", "node.odd", "node.odd")
    await network.post.delivering.tick()

    items, pages = await walk(who, "/webhooks/crm/deliveries")
    shown = await who.get("/webhooks/crm")

    events = [one["event"] for one in items]
    assert events == sorted(events, reverse=True)
    assert len(set(events)) == len(events) == 3
    assert pages == 2
    assert [one["state"] for one in items] == ["due", "waiting", "delivered"]
    assert shown["last_problem"]["status"] == 500
    assert code_of(await who("GET", "/webhooks/nobody/deliveries")) == (404, "not-found")


async def test_webhooks_come_in_pages_by_name(
    plane: Plane,
    network: Network,  # noqa: ARG001 - a name must mean something
) -> None:
    who = operator(plane)
    for name in ("b", "a", "c"):
        await made(who, name)

    items, pages = await walk(who, "/webhooks")

    assert [one["name"] for one in items] == ["a", "b", "c"]
    assert pages == 2


async def test_a_node_that_is_revoked_by_the_api_is_told_with_who_did_it(
    plane: Plane, network: Network
) -> None:
    who = operator(plane, name="ci")
    receiver = network.receiver(await made(who, kinds=["node.revoked"]))
    await plane.device().enroll()

    await who.does("POST", f"/nodes/{UUID}/revoke")
    await network.post.delivering.tick()

    assert receiver.kinds == ["node.revoked"]  # once, though it is in the audit too
    assert receiver.got[0].event["data"]["by"] == "api/ci"
    assert receiver.got[0].event["data"]["node"] == UUID
