"""Labels, standing, node tokens and join tokens by the admin API: what only the command line could do before."""

from __future__ import annotations

import io
from typing import Any

import pytest
import segno

from cloudly.access import Role
from cloudly.labels import MOST
from cloudly.service import rotation
from tests.cloudly.api_given import Operator, operator
from tests.cloudly.given import UUID, Plane, bearer, code_of
from tests.cloudly.test_api_paging import walk
from tests.cloudly.test_node_standing import OTHER, both_halves

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

ADDRESS = "https://cloudly.example:8443"
WHY = {"reason": "its disk makes noises"}


# -- labels


async def test_labels_are_put_changed_removed_and_what_rollouts_select_by(plane: Plane) -> None:
    await plane.device().enroll()
    who = operator(plane, Role.OPERATOR)
    path = f"/nodes/{UUID}/labels"

    first = await who.does("PUT", path, {"labels": {"site": "lab", "rack": "7"}})
    one = await who.does("PUT", f"{path}/site", {"value": "a=b, c"})
    gone = await who.does("DELETE", f"{path}/rack")
    twice = await who("DELETE", f"{path}/rack")
    others = await who.does("PUT", path, {"labels": {"floor": ""}})

    assert first["labels"] == {"site": "lab", "rack": "7"}
    assert one["labels"] == {"site": "a=b, c", "rack": "7"}
    assert gone["labels"] == {"site": "a=b, c"}
    assert code_of(twice) == (404, "not-found")
    assert others["labels"] == (await who.get(path))["labels"] == {"floor": ""}
    assert (await who.get(f"/nodes/{UUID}"))["labels"] == {"floor": ""}
    assert (await who.get("/nodes"))["items"][0]["labels"] == {"floor": ""}


@pytest.mark.parametrize(
    "labels",
    [{"Site": "x"}, {"": "x"}, {"-a": "x"}, {"a b": "x"}, {"k" * 64: "x"}, {"a": "x" * 101}, {"a": "\x00"},
     {"a": "\u202e"}, {"a": 1}, {"a": None}, [], "site=lab", {f"k{number}": "x" for number in range(MOST + 1)}],
)  # fmt: skip
async def test_labels_that_cannot_be_change_nothing(plane: Plane, labels: Any) -> None:
    await plane.device().enroll()
    who = operator(plane)
    path = f"/nodes/{UUID}/labels"
    await who.does("PUT", path, {"labels": {"site": "lab"}})

    answer = await who("PUT", path, json={"labels": labels})

    assert code_of(answer) == (422, "malformed")
    assert (await who.get(path))["labels"] == {"site": "lab"}


async def test_one_label_too_many_is_refused(plane: Plane) -> None:
    await plane.device().enroll()
    who = operator(plane)
    path = f"/nodes/{UUID}/labels"
    await who.does("PUT", path, {"labels": {f"k{number}": "x" for number in range(MOST)}})

    more = await who("PUT", f"{path}/canary", json={"value": "x"})
    other = await who.does("PUT", f"{path}/k0", {"value": "y"})

    assert code_of(more) == (409, "conflict")
    assert "canary" not in more.text
    assert other["labels"]["k0"] == "y"


# -- standing


async def test_a_node_in_quarantine_gets_no_order_until_it_is_lifted(plane: Plane) -> None:
    await both_halves(plane)
    who = operator(plane, Role.OPERATOR, "ci")
    await who.release("1.0.0")
    order = ("PUT", f"/nodes/{UUID}/release", {"release": "1.0.0"})

    shown = await who.does("POST", f"/nodes/{UUID}/quarantine", WHY)
    again = await who("POST", f"/nodes/{UUID}/quarantine", json={"reason": "another"})
    refused = await who(order[0], order[1], json=order[2])
    found = (await who.get("/nodes", state="quarantined"))["items"]
    lifted = await who.does("POST", f"/nodes/{UUID}/lift-quarantine")

    assert (shown["state"], shown["state_detail"]) == (
        "quarantined",
        "its disk makes noises (api/ci)",
    )
    assert code_of(again) == code_of(refused) == (409, "conflict")
    assert "api/ci" in again.json()["detail"]
    assert [one["node_id"] for one in found] == [UUID]
    assert (lifted["quarantined_at_ms"], lifted["state"]) == (None, "online")
    assert (await who.does(*order))["generation"] == 1


async def test_a_retired_node_is_refused_and_readmitted(plane: Plane) -> None:
    device = await both_halves(plane)
    who = operator(plane, Role.OPERATOR)

    gone = await who.does("POST", f"/nodes/{UUID}/retire", WHY)
    refused = await device.beat()
    back = await who.does("POST", f"/nodes/{UUID}/readmit")
    twice = await who("POST", f"/nodes/{UUID}/readmit")

    assert gone["state"] == "retired"
    assert code_of(refused) == (401, "node-revoked")
    assert back["retired_at_ms"] is None
    assert (await device.beat()).status_code == 200
    assert code_of(twice) == (409, "conflict")


@pytest.mark.parametrize("order", ["quarantine", "retire"])
@pytest.mark.parametrize("reason", [None, "", "  ", "x" * 501, "a\x1bb", "\x00", 7])
async def test_without_a_reason_that_can_be_read_nothing_happens(
    plane: Plane, order: str, reason: Any
) -> None:
    await plane.device().enroll()
    body = {} if reason is None else {"reason": reason}

    answer = await operator(plane)("POST", f"/nodes/{UUID}/{order}", json=body)

    assert code_of(answer)[0] in {409, 422}
    assert (plane.node()["quarantined_at_ms"], plane.node()["retired_at_ms"]) == (None, None)


async def test_two_devices_with_one_identity_are_settled_by_a_person(plane: Plane) -> None:
    first = await plane.device(writer="w1").enroll()
    await first.beat()
    first.writer = "w2"
    await first.beat()
    for _ in range(3):
        first.writer = "w1"
        await first.beat()
    who = operator(plane, Role.OPERATOR)
    alarmed = await who.get(f"/nodes/{UUID}")

    done = await who.does("POST", f"/nodes/{UUID}/acknowledge")
    nothing = await who.does("POST", f"/nodes/{UUID}/acknowledge")

    assert alarmed["state"] == "needs-operator"
    assert (done["acknowledged"], nothing["acknowledged"]) == (True, False)
    assert (await who.get(f"/nodes/{UUID}"))["state"] != "needs-operator"


# -- node tokens


async def test_a_node_is_asked_for_another_token_and_a_fleet_in_slices(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "SLICE", 2)
    devices = [await plane.device(f"node{number}").enroll() for number in range(5)]
    await devices[0].beat()
    who = operator(plane, Role.OPERATOR)

    one = await who.does("POST", "/nodes/node0/rotate-token")
    rest = await who.does("POST", "/fleets/default/rotate-tokens")
    again = await who.does("POST", "/fleets/default/rotate-tokens")

    assert one == {"nodes": 1, "asked": 1}
    assert rest == {"nodes": 5, "asked": 4}
    assert again == {"nodes": 5, "asked": 0}
    assert [(await device.beat()).json()["rotate_token"] for device in devices] == [2] * 5
    acts = [act["act"] for act in plane.rows("audit")]
    assert acts == ["node.rotation_asked", "fleet.rotation_asked"]


async def test_a_node_without_a_node_token_cannot_be_asked_for_another(plane: Plane) -> None:
    await plane.client.post(
        "/device/register",
        json={"uuid": UUID, "api_key": "supervisor0key0supervisor0key000"},
        headers=bearer(plane.join_token()),
    )

    answer = await operator(plane)("POST", f"/nodes/{UUID}/rotate-token")

    assert code_of(answer) == (409, "conflict")
    assert "has not enrolled" in answer.json()["detail"]


# -- join tokens


async def test_nodes_come_with_the_labels_of_their_join_token_and_their_uses_are_told(
    plane: Plane,
) -> None:
    who = operator(plane, Role.OPERATOR)
    made = await who.does("POST", "/join-tokens", {"uses": 9, "labels": {"site": "lab"}})
    for number in range(3):
        await plane.device(f"{number:032x}").ask(made["token"])
        await plane.world.sleep(10)
    await plane.client.post(
        "/device/register",
        json={"uuid": f"{1:032x}", "api_key": "supervisor0key0supervisor0key000"},
        headers=bearer(made["token"]),
    )
    other = await who.does("POST", "/join-tokens", {})

    uses, pages = await walk(who, f"/join-tokens/{made['id']}/uses")

    assert (
        made["labels"] == (await who.get(f"/join-tokens/{made['id']}"))["labels"] == {"site": "lab"}
    )
    assert (await who.get(f"/nodes/{0:032x}/labels"))["labels"] == {"site": "lab"}
    assert [one["node_id"] for one in uses] == [f"{number:032x}" for number in range(3)]
    assert pages == 2
    assert [one["agent_at_ms"] - uses[0]["agent_at_ms"] for one in uses] == [0, 10_000, 20_000]
    assert [one["supervisor_at_ms"] is None for one in uses] == [True, False, True]
    assert (await who.get(f"/join-tokens/{other['id']}/uses"))["items"] == []
    assert code_of(await who("GET", "/join-tokens/4711/uses")) == (404, "not-found")


async def test_labels_that_cannot_be_make_no_join_token(plane: Plane) -> None:
    who = operator(plane)

    for labels in ({"Site": "x"}, {"a": "\u202e"}, {f"k{number}": "x" for number in range(33)}):
        answer = await who("POST", "/join-tokens", json={"labels": labels})
        assert code_of(answer) == (422, "malformed")

    assert plane.rows("join_token") == []


@pytest.fixture
def reachable(plane: Plane) -> Operator:
    """An operator of a Cloudly that knows its public address."""
    plane.store.close()
    other = Plane.begin(
        plane.directory, world=plane.world, database_url=plane.database_url, public_url=ADDRESS
    )
    plane.store, plane.app, plane.client = other.store, other.app, other.client
    return operator(plane, Role.OPERATOR)


@pytest.mark.parametrize("accept", ["image/svg+xml", "text/html;q=0.1, IMAGE/SVG+XML;q=0.9, */*"])
async def test_who_makes_a_join_token_may_have_it_as_a_picture(
    plane: Plane, reachable: Operator, accept: str
) -> None:
    answer = await reachable("POST", "/join-tokens", json={}, headers={"accept": accept})
    text = await reachable("POST", "/join-tokens", json={}, headers={"accept": "text/plain"})

    assert answer.status_code == 201
    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert answer.headers["location"] == "/api/v1/join-tokens/1"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.content.startswith(b"<?xml")
    code = text.text.strip()
    assert text.headers["content-type"].startswith("text/plain")
    assert code.startswith(f"baseos-join:v1?cloudly={ADDRESS}&token=bjt_")
    assert (await plane.device().ask(code.rpartition("=")[2])).status_code == 201
    drawn = io.BytesIO()
    segno.make_qr(code).save(drawn, kind="svg", scale=8)
    assert len(drawn.getvalue()) == pytest.approx(len(answer.content), rel=0.2)  # another token


@pytest.mark.parametrize(
    "accept", ["", "*/*", "application/json, text/plain", "text/html", "x" * 500]
)
async def test_who_asks_for_no_code_has_it_as_json(reachable: Operator, accept: str) -> None:
    answer = await reachable("POST", "/join-tokens", json={}, headers={"accept": accept})

    assert answer.json()["token"].startswith("bjt_")


async def test_no_code_is_made_where_cloudly_does_not_know_its_address(plane: Plane) -> None:
    who = operator(plane)

    answer = await who("POST", "/join-tokens", json={}, headers={"accept": "image/svg+xml"})

    assert code_of(answer) == (409, "conflict")
    assert "CLOUDLY_PUBLIC_URL" in answer.json()["detail"]
    assert plane.rows("join_token") == []


async def test_what_is_said_of_one_node_is_not_said_of_another(plane: Plane) -> None:
    await both_halves(plane)
    await both_halves(plane, OTHER, "x" * 32)
    who = operator(plane)

    await who.does("POST", f"/nodes/{UUID}/quarantine", WHY)
    await who.does("PUT", f"/nodes/{UUID}/labels/site", {"value": "lab"})

    other = await who.get(f"/nodes/{OTHER}")
    assert (other["state"], other["labels"]) == ("online", {})
    for path in ("quarantine", "retire", "readmit", "acknowledge", "rotate-token"):
        answer = await who("POST", f"/nodes/nobody/{path}", json=WHY)
        assert code_of(answer) == (404, "not-found"), path
