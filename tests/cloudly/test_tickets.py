"""The enrollment ticket: the agent of a node whose Supervisor has registered enrolls without the join token."""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from cloudly.balena.agent_environment import AGENT_LABEL, AgentEnvironment
from cloudly.logs import redact
from cloudly.problems import StoreUnsafe
from cloudly.settings import TlsMode
from cloudly.tickets import FILE, Tickets
from cloudly.tls.kept import Kept
from cloudly.tokens import fingerprint
from tests.cloudly.given import UUID, Plane, bearer, code_of
from tests.cloudly.streaming import exchange

pytestmark = pytest.mark.anyio

KEY = "canary0device0key0canary0device0"
OTHER = "0123456789abcdef0123456789abcdef"
AGENT = {AGENT_LABEL: "1"}


async def register(plane: Plane, token: str, *, uuid: str = UUID, key: str = KEY) -> httpx.Response:
    body = {"uuid": uuid, "api_key": key, "device_type": "raspberrypi4-64"}
    return await plane.client.post("/device/register", json=body, headers=bearer(token))


def ticket_of(plane: Plane, node: int = 1) -> str:
    ticket = plane.store.read_now(lambda db: Tickets(plane.directory, plane.world).of(db, node))
    assert ticket is not None
    return ticket


def database(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.glob("cloudly.db*"))


async def test_supervisor_and_agent_are_one_node_and_one_use_and_the_agent_never_saw_the_token(
    plane: Plane,
) -> None:
    await register(plane, plane.join_token(uses=2))
    device = plane.device()

    answer = await device.ask(ticket_of(plane))

    assert answer.status_code == 201
    assert (await device.beat()).status_code == 200
    assert len(plane.rows("node")) == 1
    assert plane.rows("join_token")[0]["uses_left"] == 1
    (use,) = plane.rows("join_use")
    assert use["secret_hash"] is not None
    assert use["device_key_hash"] is not None


async def test_a_lost_answer_is_given_again_and_a_second_agent_gets_nothing(plane: Plane) -> None:
    await register(plane, plane.join_token())
    ticket, device = ticket_of(plane), plane.device()
    first = await device.ask(ticket)

    again = await device.ask(ticket)
    thief = await plane.device().ask(ticket)
    await device.beat()
    late = await device.ask(ticket)

    assert again.json()["node_token"] == first.json()["node_token"]
    assert code_of(thief) == (403, "token-used-up")
    assert code_of(late) == (409, "enrollment-closed")


async def test_a_ticket_is_for_its_own_node(plane: Plane) -> None:
    token = plane.join_token(uses=5)
    await register(plane, token)
    await register(plane, token, uuid=OTHER, key=KEY[::-1])

    stranger = await plane.device(node_id="f" * 32).ask(ticket_of(plane))
    neighbour = await plane.device(node_id=OTHER).ask(ticket_of(plane))
    own = await plane.device(node_id=OTHER).ask(ticket_of(plane, 2))

    assert code_of(stranger) == (401, "token-unknown")
    assert code_of(neighbour) == (401, "token-unknown")
    assert own.status_code == 201
    assert len(plane.rows("node")) == 2


@pytest.mark.parametrize("n", [1, 2, 99, 10**17])
async def test_a_forged_ticket_is_no_ticket(plane: Plane, n: int) -> None:
    await register(plane, plane.join_token())
    good = ticket_of(plane)
    wrong = f"bet_{n}_" + ("A" * 43 if n == 1 else good[-43:])

    answer = await plane.device().ask(wrong)

    assert code_of(answer) == (401, "token-unknown")
    assert plane.rows("credential") == []


async def test_a_download_that_takes_longer_than_the_token_lasts_does_not_lose_the_device(
    plane: Plane,
) -> None:
    token = plane.join_token(uses=2)
    await register(plane, token)
    plane.world.jump(timedelta(days=2))

    with_token = await plane.device().ask(token)
    with_ticket = await plane.device().ask(ticket_of(plane))

    assert code_of(with_token) == (403, "token-expired")
    assert with_ticket.status_code == 201


async def test_a_revoked_token_and_a_revoked_node_let_no_ticket_in(plane: Plane) -> None:
    await register(plane, plane.join_token())
    plane.revoke_token()
    of_token = await plane.device().ask(ticket_of(plane))
    await register(plane, plane.join_token(), uuid=OTHER, key=KEY[::-1])
    plane.revoke_node(OTHER)

    of_node = await plane.device(node_id=OTHER).ask(ticket_of(plane, 2))

    assert code_of(of_token) == (403, "token-revoked")
    assert code_of(of_node)[1] == "node-revoked"


async def test_a_supervisor_cannot_register_with_a_ticket(plane: Plane) -> None:
    await register(plane, plane.join_token())

    answer = await register(plane, ticket_of(plane), key="another0key0another0key0another0")

    assert answer.status_code == 401


async def test_a_new_key_of_the_supervisor_ends_the_old_ticket(plane: Plane) -> None:
    await register(plane, plane.join_token())
    old = ticket_of(plane)
    await exchange(plane, KEY[::-1])

    assert ticket_of(plane) != old
    assert code_of(await plane.device().ask(old)) == (401, "token-unknown")
    assert (await plane.device().ask(ticket_of(plane))).status_code == 201


async def test_it_is_the_same_at_each_poll_and_after_a_restart_and_not_in_the_database(
    plane: Plane, directory: Path
) -> None:
    await register(plane, plane.join_token())
    ticket = ticket_of(plane)

    again = plane.again()
    try:
        assert ticket_of(again) == ticket
    finally:
        again.end()

    key = (directory / FILE).read_bytes()
    kept = database(directory)
    assert UUID.encode() in kept
    for secret in (key, ticket[-43:].encode(), fingerprint(ticket)):
        assert secret not in kept
    assert (directory / FILE).stat().st_mode & 0o777 == 0o600


async def test_without_a_registered_supervisor_there_is_no_ticket(plane: Plane) -> None:
    await plane.device().ask(plane.join_token())

    assert plane.store.read_now(lambda db: Tickets(plane.directory, plane.world).of(db, 1)) is None
    assert not (plane.directory / FILE).exists()


async def test_a_damaged_key_is_named_and_replaced_by_nobody(plane: Plane) -> None:
    await register(plane, plane.join_token())
    ticket_of(plane)
    (plane.directory / FILE).write_bytes(b"short")

    with pytest.raises(StoreUnsafe, match=r"ticket\.key has 5 bytes"):
        ticket_of(plane)

    assert (plane.directory / FILE).read_bytes() == b"short"


async def test_a_ticket_is_taken_out_of_log_lines(plane: Plane) -> None:
    await register(plane, plane.join_token())

    assert ticket_of(plane)[-20:] not in redact(f"asked with {ticket_of(plane)} again")


# -- what the agent's service is given


def environment(plane: Plane, **settings: object) -> AgentEnvironment:
    asked = plane.settings.model_copy(update={"public_url": "https://c.example", **settings})
    return AgentEnvironment(plane.store, plane.world, asked)


async def test_the_agents_service_is_told_where_cloudly_is_whom_to_trust_and_given_a_ticket(
    plane: Plane,
) -> None:
    await register(plane, plane.join_token())
    Kept.of(plane.directory).ready_for("c.example", plane.world)
    given = environment(plane, tls=TlsMode.SELF)

    first, second = [await given.added_to({"A": "b"}, AGENT, device=1) for _ in range(2)]

    assert first == second
    assert set(first) == {"A", "BASEOS_CLOUDLY_URL", "BASEOS_CLOUDLY_CA", "BASEOS_JOIN_TOKEN"}
    assert first["BASEOS_CLOUDLY_URL"] == "https://c.example"
    assert (
        base64.b64decode(first["BASEOS_CLOUDLY_CA"])
        == Kept.of(plane.directory).ca_file.read_bytes()
    )
    assert first["BASEOS_JOIN_TOKEN"] == ticket_of(plane)
    assert all(isinstance(value, str) for value in first.values())


async def test_what_the_release_says_wins_and_other_services_are_given_nothing(
    plane: Plane,
) -> None:
    await register(plane, plane.join_token())
    given = environment(plane)
    own = {"BASEOS_CLOUDLY_URL": "https://inside.example"}

    told = await given.added_to(own, AGENT, device=1)
    assert told["BASEOS_CLOUDLY_URL"] == "https://inside.example"
    for labels in ({}, {AGENT_LABEL: "0"}, {AGENT_LABEL: ""}, {"io.balena.features.dbus": "1"}):
        assert await given.added_to({"A": "b"}, labels, device=1) == {"A": "b"}


async def test_a_cloudly_that_does_not_know_its_own_address_gives_nothing(plane: Plane) -> None:
    await register(plane, plane.join_token())

    assert await environment(plane, public_url=None).added_to({}, AGENT, device=1) == {}


# -- what the host asks


async def test_the_host_gets_the_204_that_its_clock_waits_for_and_a_configuration_without_a_vpn(
    plane: Plane,
) -> None:
    head = await plane.client.head("/connectivity-check")
    get = await plane.client.get("/connectivity-check")
    configuration = await plane.client.get("/os/v1/config", headers=bearer("anything"))

    assert (head.status_code, get.status_code, get.content) == (204, 204, b"")
    assert configuration.status_code == 200
    assert configuration.json()["config"] == {"overrides": {}}
    assert configuration.json()["services"]["openvpn"]["config"] == ""
    assert "retry-after" not in configuration.headers


async def test_the_target_of_a_node_holds_its_own_ticket_and_is_the_same_at_each_poll(
    directory: Path,
) -> None:
    plane = Plane.begin(directory, public_url="https://c.example")
    token = plane.join_token(uses=2)
    await register(plane, token)
    await register(plane, token, uuid=OTHER, key=KEY[::-1])
    plane.store.write_now(lambda db: db.execute("UPDATE node SET hostname='x'").rowcount)
    plane.release("1.0.0", labels={"main": AGENT})

    first, other = await poll(plane), await poll(plane, uuid=OTHER, key=KEY[::-1])
    again = await poll(plane, tag=first.headers["etag"])
    await exchange(plane, "another0key0another0key0another0")
    after = await poll(plane, key="another0key0another0key0another0", tag=first.headers["etag"])
    new_ticket = ticket_of(plane)
    plane.end()

    assert again.status_code == 304
    assert "bet_1_" in first.text
    assert "bet_2_" in other.text
    assert "bet_1_" not in other.text
    assert after.status_code == 200
    assert new_ticket in after.text


async def poll(plane: Plane, *, uuid: str = UUID, key: str = KEY, tag: str = "") -> httpx.Response:
    headers = bearer(key) | {"if-none-match": tag}
    return await plane.client.get(f"/device/v3/{uuid}/state", headers=headers)


async def test_after_a_reflash_the_agent_of_the_new_life_comes_in_with_its_ticket(
    plane: Plane,
) -> None:
    await register(plane, plane.join_token())
    before = plane.device()
    await before.ask(ticket_of(plane))
    await before.beat()
    await plane.world.sleep(60)

    await exchange(plane, "another0key0another0key0another0")
    after = plane.device(epoch="epoch-2")
    answer = await after.ask(ticket_of(plane))
    thief = await plane.device(epoch="epoch-3").ask(ticket_of(plane))

    assert answer.status_code == 201
    assert code_of(thief) == (403, "token-used-up")


async def test_a_ticket_lets_in_no_second_agent(plane: Plane) -> None:
    """The agent had another join token, so the ticket's own use was never spent."""
    device = await plane.device().enroll()
    await register(plane, plane.join_token())
    thief = plane.device()

    answer = await thief.ask(ticket_of(plane), epoch="another")

    assert code_of(answer) == (403, "token-used-up")
    assert (await device.beat()).status_code == 200
