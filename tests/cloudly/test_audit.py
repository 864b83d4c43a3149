"""The audit: no deed of a person without its entry, no entry without its deed; over every route and every command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer

from cloudly.access import Role
from cloudly.cli import app
from cloudly.http.api.door import Guarded
from cloudly.problems import BadOrder
from cloudly.rollouts import orders
from cloudly.store import audit, join_tokens
from cloudly.store.audit import By
from cloudly.store.sql import Connection
from tests.cloudly.api_given import NOBODY, Operator, operator, routes, seen
from tests.cloudly.compose_files import file_of, image
from tests.cloudly.given import HOUR_MS, UUID, Plane, code_of
from tests.cloudly.rolling import Rolling, plan
from tests.cloudly.test_api_webhooks import Network
from tests.cloudly.test_governing_commands import Run

pytestmark = pytest.mark.anyio

both_engines = pytest.mark.both_engines
CANARY = "bjt_canary0canary0canary0"

# -- by the API


@dataclass(frozen=True)
class Order:
    """A request that succeeds, what must have been before it, and the act that is then in the audit."""

    act: str
    body: object = None
    path: str = ""
    """Where the one with the names of `NOBODY` will not do."""
    first: tuple[str, ...] = ()
    """Things of `THERE` that must be there."""
    content: bytes | None = None
    params: dict[str, str] = field(default_factory=dict)


WHY = {"reason": "its disk makes noises"}
HOOK = {"name": "nobody", "url": "https://there.example/hook", "allow_private": True}
STARTED = ("release", "rollout", "started")
ASKED = ("release", "careful rollout", "asked")
ORDERS: dict[str, Order] = {
    "create_api_token": Order("api_token.created", {"name": "nobody", "role": "viewer"}),
    "revoke_api_token": Order("api_token.revoked", first=("api token",)),
    "create_fleet": Order("fleet.created", {"name": "nowhere"}),
    "remove_fleet": Order("fleet.removed", first=("fleet",)),
    "set_release_of_fleet": Order(
        "fleet.release_set", {"release": "9.9.9"}, first=("fleet", "release")
    ),
    "move_node": Order("node.moved", {"fleet": "nowhere"}, first=("node", "fleet")),
    "create_join_token": Order("join_token.created", {"name": "shelf", "labels": {"site": "lab"}}),
    "revoke_join_token": Order("join_token.revoked", path="/join-tokens/1/revoke", first=("join token",)),
    "put_labels": Order("node.labelled", {"labels": {"site": "lab"}}, first=("node",)),
    "put_label": Order("node.labelled", {"value": "lab"}, first=("node",)),
    "remove_label": Order("node.labelled", first=("node", "label")),
    "set_release_of_node": Order(
        "node.release_set", {"release": "9.9.9"}, first=("node", "release")
    ),
    "revoke_node": Order("node.revoked", first=("node",)),
    "ask_for_diagnosis": Order("node.diagnosis_asked", first=("node",)),
    "quarantine_node": Order("node.quarantined", WHY, first=("node",)),
    "lift_quarantine": Order("node.quarantine_lifted", first=("node", "quarantine")),
    "retire_node": Order("node.retired", WHY, first=("node",)),
    "readmit_node": Order("node.readmitted", first=("node", "revoked")),
    "acknowledge_fences": Order("node.fences_acknowledged", first=("node", "fence")),
    "rotate_node_token": Order("node.rotation_asked", first=("node",)),
    "rotate_node_tokens": Order("fleet.rotation_asked", path="/fleets/default/rotate-tokens", first=("node",)),
    "create_publisher": Order("publisher.created", {"name": "nobody"}),
    "revoke_publisher": Order("publisher.revoked", first=("publisher",)),
    "create_release": Order("release.created", content=file_of(), params={"version": "9.9.9"}),
    "create_webhook": Order("webhook.created", HOOK),
    "delete_webhook": Order("webhook.deleted", first=("webhook",)),
    "enable_webhook": Order("webhook.enabled", first=("webhook", "disabled")),
    "disable_webhook": Order("webhook.disabled", first=("webhook",)),
    "rotate_webhook": Order("webhook.rotated", {}, first=("webhook",)),
    "replay_webhook": Order("webhook.replayed", {"since_ms": 0}, first=("webhook",)),
    "test_webhook": Order("webhook.tested", first=("webhook",)),
    "create_channel": Order("channel.created", {"name": "nowhere"}),
    "remove_channel": Order("channel.removed", first=("channel",)),
    "set_policy": Order("channel.policy_set", {"approvals": 1}, first=("channel",)),
    "follow": Order("fleet.followed", {"channel": "nowhere"}, first=("fleet", "channel")),
    "unfollow": Order("fleet.unfollowed", first=("fleet", "channel", "following")),
    "propose": Order("channel.proposed", {"release": "9.9.9"}, first=("release", "channel")),
    "approve_release": Order("channel.approved", {}, first=("release", "channel", "proposed")),
    "refuse_release": Order("channel.refused", {"note": "not yet"}, first=("release", "channel", "proposed")),
    "take_back_word": Order("channel.word_taken_back", first=("release", "channel", "proposed", "word")),
    "publish": Order("channel.published", first=("release", "channel", "proposed", "word", "looser policy")),
    "withdraw": Order("channel.withdrawn", WHY, first=("release", "open channel", "proposed")),
    "set_floor": Order("channel.floor_set", {"floor": True}, first=("release", "channel", "proposed")),
    "pin_node": Order("node.pinned", WHY | {"release": "9.9.9"}, first=("node", "release")),
    "unpin_node": Order("node.unpinned", first=("node", "release", "node pinned")),
    "pin_fleet": Order("fleet.pinned", WHY | {"release": "9.9.9"}, first=("fleet", "release")),
    "unpin_fleet": Order("fleet.unpinned", first=("fleet", "release", "fleet pinned")),
    "ban": Order("release.banned", WHY | {"what": "9.9.9"}, first=("release",)),
    "lift_ban": Order("release.unbanned", first=("digest banned",)),
    "create_rollout": Order("rollout.created", {"release": "9.9.9"}, first=("release",)),
    "ask_approval": Order(
        "rollout.approval_asked", path="/rollouts/1/ask-approval", first=("release", "careful rollout")
    ),
    "approve_rollout": Order("rollout.approved", path="/rollouts/1/approve", first=ASKED),
    "refuse_rollout": Order("rollout.refused", WHY, "/rollouts/1/refuse", first=ASKED),
    "start_rollout": Order("rollout.started", path="/rollouts/1/start", first=("release", "rollout")),
    "pause_rollout": Order("rollout.paused", WHY, "/rollouts/1/pause", first=STARTED),
    "resume_rollout": Order("rollout.resumed", path="/rollouts/1/resume", first=(*STARTED, "paused")),
    "halt_rollout": Order("rollout.halted", WHY, "/rollouts/1/halt", first=STARTED),
    "roll_back": Order("rollout.rollback_ordered", WHY, "/rollouts/1/roll-back", first=STARTED),
    "abort_rollout": Order("rollout.aborted", WHY, "/rollouts/1/abort", first=STARTED),
}  # fmt: skip
"""By the name of the route's function. Who adds a route that changes something adds it here."""
CHANGE_NOTHING = frozenset({"check_compose_file", "try_plan"})
"""Routes that are no GET only because they take a body."""
AS_OTHERS = frozenset({"approve_phase"})
"""One fact like the others, in a state that takes an engine and time: test_what_a_person_orders_of_a_rollout_..."""
THERE: dict[str, tuple[str, str, object]] = {
    "api token": ("POST", "/api-tokens", {"name": "nobody", "role": "viewer"}),
    "fleet": ("POST", "/fleets", {"name": "nowhere"}),
    "join token": ("POST", "/join-tokens", {}),
    "label": ("PUT", f"/nodes/{UUID}/labels", {"labels": {"nobody": "x"}}),
    "quarantine": ("POST", f"/nodes/{UUID}/quarantine", WHY),
    "revoked": ("POST", f"/nodes/{UUID}/revoke", None),
    "publisher": ("POST", "/publishers", {"name": "nobody"}),
    "webhook": ("POST", "/webhooks", HOOK),
    "disabled": ("POST", "/webhooks/nobody/disable", None),
    "channel": ("POST", "/channels", {"name": "nowhere", "approvals": 2}),
    "looser policy": ("PUT", "/channels/nowhere/policy", {"approvals": 1}),
    "open channel": ("POST", "/channels", {"name": "nowhere"}),
    "following": ("PUT", "/fleets/nowhere/channel", {"channel": "nowhere"}),
    "proposed": ("POST", "/channels/nowhere/releases", {"release": "9.9.9"}),
    "word": ("POST", "/channels/nowhere/releases/9.9.9/approve", {}),
    "digest banned": ("POST", "/bans", WHY | {"what": NOBODY["digest"]}),
    "node pinned": ("PUT", f"/nodes/{UUID}/pin", WHY | {"release": "9.9.9"}),
    "fleet pinned": ("PUT", "/fleets/nowhere/pin", WHY | {"release": "9.9.9"}),
    "rollout": ("POST", "/rollouts", {"release": "9.9.9"}),
    "careful rollout": (
        "POST",
        "/rollouts",
        {"release": "9.9.9", "plan": {"needs_approval": True}},
    ),
    "started": ("POST", "/rollouts/1/start", None),
    "paused": ("POST", "/rollouts/1/pause", WHY),
    "asked": ("POST", "/rollouts/1/ask-approval", None),
}


def writing() -> list[Guarded]:
    return [route for route in routes() if "GET" not in (route.methods or ())]


async def makes(plane: Plane, who: Operator, thing: str) -> None:
    match thing:
        case "node":
            await (await plane.device().enroll()).beat()
        case "release":
            await who.release("9.9.9")
        case "fence":
            plane.store.write_now(
                lambda db: (
                    db.execute(
                        "INSERT INTO fence(node, count, first_at_ms, last_at_ms, alarm, told) VALUES(1,2,1,1,1,'{}')"
                    ).rowcount
                )
            )
        case _:
            await who.does(*THERE[thing])


def test_every_route_that_changes_something_has_an_order_here() -> None:
    names = {route.name for route in writing()}

    assert names == set(ORDERS) | CHANGE_NOTHING | AS_OTHERS, (
        "add the new route to ORDERS, and audit it"
    )


@both_engines
@pytest.mark.parametrize(
    "route", [pytest.param(one, id=one.name) for one in writing() if one.name in ORDERS]
)
async def test_an_order_by_the_api_and_its_entry_are_one(
    plane: Plane, route: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    Network(plane)  # of nobody: no story reaches the real one
    who, order = operator(plane, Role.ADMIN, "ci"), ORDERS[route.name]
    for thing in order.first:
        await makes(plane, who, thing)
    await who.get("/self")  # the day's first use is noted
    method = next(iter(route.methods or ()))
    path = order.path or route.path_format.format(**NOBODY)
    body = {"content": order.content} if order.content else {"json": order.body}
    before = seen(plane)

    def full(*_: object, **__: object) -> bool:
        raise BadOrder("there is no room in the audit")

    with monkeypatch.context() as patch:
        patch.setattr(audit, "keep", full)
        refused = await who(method, path, params=order.params, **body)
    unchanged = seen(plane)
    done = await who(method, path, params=order.params, **body)
    acts = plane.rows("audit")[before.acts :]

    assert code_of(refused) == (409, "conflict"), refused.text
    assert unchanged == before  # no deed without its entry
    assert done.is_success, done.text
    assert [act["act"] for act in acts][:1] == [order.act]
    assert {act["actor"] for act in acts} == {"api/ci"}
    kind, _, name = acts[0]["object"].partition("/")
    assert kind == order.act.partition(".")[0].replace("_", "-")
    assert name
    secrets = [done.json()[key] for key in ("token", "password", "secret") if key in _json(done)]
    assert not any(secret in str(acts) for secret in secrets)


def _json(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = answer.json() if answer.content else {}
    return found


@both_engines
@pytest.mark.parametrize(
    "name", ["create_fleet", "revoke_node", "create_join_token", "quarantine_node"]
)
async def test_what_was_not_committed_is_in_no_audit(
    plane: Plane, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    who, order = operator(plane), ORDERS[name]
    for thing in order.first:
        await makes(plane, who, thing)
    (route,) = [one for one in writing() if one.name == name]
    await who.get("/self")
    before, really = seen(plane), plane.store.write

    async def undone(work: Any) -> Any:
        def fails_at_the_end(db: Connection) -> Any:
            work(db)
            raise BadOrder("it was pulled out")

        return await really(fails_at_the_end)

    monkeypatch.setattr(plane.store, "write", undone)
    answer = await who("POST", route.path_format.format(**NOBODY), json=order.body)

    assert code_of(answer) == (409, "conflict")
    assert seen(plane) == before


@both_engines
async def test_an_order_that_changed_nothing_is_in_no_audit(plane: Plane) -> None:
    who = operator(plane)
    for thing in ("node", "release", "join token", "webhook"):
        await makes(plane, who, thing)
    twice: list[tuple[str, str, object]] = [
        ("POST", f"/nodes/{UUID}/revoke", None),
        ("PUT", f"/nodes/{UUID}/labels/site", {"value": "lab"}),
        ("POST", "/join-tokens/1/revoke", None),
        ("POST", "/webhooks/nobody/disable", None),
        ("POST", f"/nodes/{UUID}/acknowledge", None),
    ]
    for one in twice:
        await who.does(*one)
    before = len(plane.rows("audit"))

    for one in twice:
        await who.does(*one)
    refused = await who("POST", f"/nodes/{UUID}/lift-quarantine")

    assert code_of(refused) == (409, "conflict")
    assert len(plane.rows("audit")) == before


@both_engines
async def test_what_is_said_in_an_order_may_look_like_a_secret_and_is_not_kept(
    plane: Plane,
) -> None:
    who = operator(plane)
    await makes(plane, who, "node")

    await who.does("POST", f"/nodes/{UUID}/retire", {"reason": f"it showed {CANARY}"})
    await who.does(
        "PUT", f"/nodes/{UUID}/labels", {"labels": {"site": CANARY, "api-key": "s3cret"}}
    )
    await who.does("POST", "/join-tokens", {"name": CANARY})
    hook = HOOK | {"url": "https://there.example/services/canary-path"}
    await who.does("POST", "/webhooks", hook)

    kept = str(plane.rows("audit"))
    assert "[redacted]" in kept
    assert CANARY not in kept
    assert "s3cret" not in kept
    assert "canary-path" not in kept
    assert "https://there.example" in kept


@both_engines
async def test_the_audit_is_read_in_pages_the_newest_first_and_of_one_thing(plane: Plane) -> None:
    who = operator(plane, Role.OPERATOR, "ci")
    viewer = operator(plane, Role.VIEWER)
    for number in range(5):
        await who.does("POST", "/fleets", {"name": f"f{number}"})
    await who.does("DELETE", "/fleets/f3")

    first = await viewer.get("/audit", limit=4)
    await who.does("POST", "/fleets", {"name": "meanwhile"})
    rest = await viewer.get("/audit", limit=4, after=first["next"])
    of_one = await viewer.get("/audit", about="fleet/f3")

    acts = [(one["act"], one["object"]) for one in first["items"] + rest["items"]]
    made = [("fleet.created", f"fleet/f{number}") for number in (4, 3, 2, 1, 0)]
    assert acts == [("fleet.removed", "fleet/f3"), *made]
    assert rest["next"] is None
    assert [one["act"] for one in of_one["items"]] == ["fleet.removed", "fleet.created"]
    assert {one["actor"] for one in of_one["items"]} == {"api/ci"}
    assert code_of(await viewer("GET", "/audit", params={"about": "no thing"})) == (
        422,
        "malformed",
    )


# -- rollouts, by whichever way


@both_engines
async def test_what_a_person_orders_of_a_rollout_is_in_the_audit_and_what_the_engine_does_is_not(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 1)
    number = rolling.create(plan(needs_approval=True))
    rolling.order(lambda one, _: orders.ask_approval(one, by="anna"))
    rolling.order(lambda one, _: orders.refuse(one, by="ben", reason="not today"))
    rolling.order(lambda one, _: orders.ask_approval(one, by="anna"))
    rolling.order(lambda one, said: orders.approve(one, said, by="ben"))
    rolling.order(lambda one, said: orders.start(one, said, by="anna"))
    for _ in range(3):
        await rolling.tick()
        await rolling.all_beat()
    rolling.order(lambda one, _: orders.pause(one, by="anna", reason="lunch"))

    acts = [(act["act"], act["actor"]) for act in plane.rows("audit")]

    assert acts == [
        ("rollout.created", "anna"),
        ("rollout.approval_asked", "anna"),
        ("rollout.refused", "ben"),
        ("rollout.approval_asked", "anna"),
        ("rollout.approved", "ben"),
        ("rollout.started", "anna"),
        ("rollout.paused", "anna"),
    ]
    assert {act["object"] for act in plane.rows("audit")} == {f"rollout/{number}"}
    assert "phase-opened" in rolling.kinds  # by the engine


# -- by the command line

READ = frozenset({
    "audit", "api-token list", "ca show", "channel list", "channel show", "fleet list", "fleet show", "image check",
    "image show", "node export-journal", "node gaps", "node journal", "node list", "node logs", "node show",
    "node verify-journal", "pin list", "registry config", "registry publisher list", "release bans", "release check",
    "release list", "release show", "rollout dry-run", "rollout events", "rollout list", "rollout nodes",
    "rollout replay", "rollout show", "rollout why", "token list", "token show", "webhook list", "webhook show",
})  # fmt: skip
ELSEWHERE = {
    "serve": "it is the server",
    "servers": "it shows them",
    "ca init": "files of this machine; that a CA is replaced is in the audit as `registry rotate-key` is",
    "ca renew": "files of this machine, which a server renews by itself",
    "servers accept-keys": "with SQLite it changes nothing; test_keys_that_were_accepted_are_in_the_audit",
    "image configure": "test_a_token_for_an_image_is_in_the_audit",
    "rollout approve-phase": "one fact like the others: test_what_a_person_orders_of_a_rollout_is_in_the_audit…",
}
"""Commands that leave no entry, or whose entry another test looks for."""
DIGEST = "sha256:" + "d" * 64
N = UUID[:8]
STORY: tuple[tuple[str, str, str], ...] = (
    ("fleet create shops", "fleet.created", "fleet/shops"),
    ("release create {file} --version 1.0.0", "release.created", "release/1.0.0"),
    ("release create {other} --version 2.0.0", "release.created", "release/2.0.0"),
    ("release set " + N + " 1.0.0", "node.release_set", f"node/{UUID}"),
    ("release set --fleet shops 1.0.0", "fleet.release_set", "fleet/shops"),
    ("fleet move " + N + " shops", "node.moved", f"node/{UUID}"),
    ("fleet create empty", "fleet.created", "fleet/empty"),
    ("fleet remove empty", "fleet.removed", "fleet/empty"),
    ("token create --name shelf", "join_token.created", "join-token/2"),
    ("token revoke 2", "join_token.revoked", "join-token/2"),
    ("api-token create ci --role viewer", "api_token.created", "api-token/ci"),
    ("api-token revoke ci", "api_token.revoked", "api-token/ci"),
    ("registry publisher create ci", "publisher.created", "publisher/ci"),
    ("registry publisher revoke ci", "publisher.revoked", "publisher/ci"),
    ("registry rotate-key", "key.replaced", "key/registry"),
    ("node label " + N + " site=lab", "node.labelled", f"node/{UUID}"),
    ("node diagnose --wait 0 " + N, "node.diagnosis_asked", f"node/{UUID}"),
    ("node rotate " + N, "node.rotation_asked", f"node/{UUID}"),
    ("node acknowledge " + N, "node.fences_acknowledged", f"node/{UUID}"),
    ("node quarantine --reason noises " + N, "node.quarantined", f"node/{UUID}"),
    ("node lift-quarantine " + N, "node.quarantine_lifted", f"node/{UUID}"),
    ("node revoke " + N, "node.revoked", f"node/{UUID}"),
    ("node readmit " + N, "node.readmitted", f"node/{UUID}"),
    ("node retire --reason sold " + N, "node.retired", f"node/{UUID}"),
    ("node readmit " + N, "node.readmitted", f"node/{UUID}"),
    (
        "webhook create crm http://127.0.0.1:9/hook --allow-private",
        "webhook.created",
        "webhook/crm",
    ),
    ("webhook test crm", "webhook.tested", "webhook/crm"),
    ("webhook rotate crm", "webhook.rotated", "webhook/crm"),
    ("webhook disable crm", "webhook.disabled", "webhook/crm"),
    ("webhook enable crm", "webhook.enabled", "webhook/crm"),
    ("webhook replay crm --since 2h", "webhook.replayed", "webhook/crm"),
    ("webhook delete crm", "webhook.deleted", "webhook/crm"),
    ("channel create stable --approvals 1", "channel.created", "channel/stable"),
    ("channel propose stable 1.0.0", "channel.proposed", "channel/stable"),
    ("release refuse 1.0.0 --channel stable --note wait", "channel.refused", "channel/stable"),
    ("release take-back 1.0.0 --channel stable", "channel.word_taken_back", "channel/stable"),
    ("release approve 1.0.0 --channel stable", "channel.approved", "channel/stable"),
    ("channel floor stable 1.0.0 on", "channel.floor_set", "channel/stable"),
    ("fleet follow shops stable", "fleet.followed", "fleet/shops"),
    ("fleet unfollow shops", "fleet.unfollowed", "fleet/shops"),
    ("channel withdraw stable 1.0.0 --reason old", "channel.withdrawn", "channel/stable"),
    ("pin node " + N + " 1.0.0 --reason fair", "node.pinned", f"node/{UUID}"),
    ("unpin node " + N, "node.unpinned", f"node/{UUID}"),
    ("pin fleet shops --reason fair", "fleet.pinned", "fleet/shops"),
    ("unpin fleet shops", "fleet.unpinned", "fleet/shops"),
    ("channel create two --approvals 1", "channel.created", "channel/two"),
    ("channel propose two 2.0.0", "channel.proposed", "channel/two"),
    ("release refuse 2.0.0 --channel two --note wait --by ben", "channel.refused", "channel/two"),
    ("release approve 2.0.0 --channel two", "channel.approved", "channel/two"),
    ("release ban 2.0.0 --reason CVE-1", "release.banned", "release/2.0.0"),
    ("release take-back 2.0.0 --channel two --by ben", "channel.word_taken_back", "channel/two"),
    ("release unban 2.0.0", "release.unbanned", "release/2.0.0"),
    ("channel publish two 2.0.0", "channel.published", "channel/two"),
    ("channel policy two --approvals 2", "channel.policy_set", "channel/two"),
    ("channel remove two", "channel.removed", "channel/two"),
    ("rollout create 2.0.0 --needs-approval", "rollout.created", "rollout/1"),
    ("rollout ask-approval 1", "rollout.approval_asked", "rollout/1"),
    ("rollout refuse 1 --reason no", "rollout.refused", "rollout/1"),
    ("rollout ask-approval 1", "rollout.approval_asked", "rollout/1"),
    ("rollout approve 1", "rollout.approved", "rollout/1"),
    ("rollout start 1", "rollout.started", "rollout/1"),
    ("rollout pause 1 --reason lunch", "rollout.paused", "rollout/1"),
    ("rollout resume 1", "rollout.resumed", "rollout/1"),
    ("rollout halt 1 --reason smoke", "rollout.halted", "rollout/1"),
    ("rollout roll-back 1 --reason fire", "rollout.rollback_ordered", "rollout/1"),
    ("rollout create 2.0.0", "rollout.created", "rollout/2"),
    ("rollout abort 2 --reason enough", "rollout.aborted", "rollout/2"),
)


def commands(command: Any, path: str = "") -> Iterator[str]:
    """The words of each command that does something."""
    below = getattr(command, "commands", {})
    if not below or getattr(command, "invoke_without_command", False):
        yield path
    for name, child in below.items():
        yield from commands(child, f"{path} {name}".strip())


def test_every_command_is_in_the_story_or_changes_nothing() -> None:
    known = set(commands(typer.main.get_command(app))) - {""}
    told = {
        name for name in known if any(f"{words} ".startswith(f"{name} ") for words, _, _ in STORY)
    }

    assert known == told | READ | set(ELSEWHERE), "add the new command to STORY, and audit it"
    assert not told & READ


@pytest.fixture
def run(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    monkeypatch.setenv("CLOUDLY_DATA_DIR", str(directory))
    monkeypatch.setenv("CLOUDLY_REGISTRY_SERVICE", "registry.example")
    monkeypatch.setenv("TERM", "dumb")
    return Run(capsys, monkeypatch)


@pytest.fixture
async def a_node(directory: Path, anyio_backend: object) -> None:  # noqa: ARG001 - the loop
    """One that is online, and that two devices spoke as."""
    plane = Plane.begin(directory)
    await (await plane.device().enroll()).beat()
    await makes(plane, operator(plane), "fence")
    plane.end()


@pytest.mark.usefixtures("a_node")
def test_every_command_that_changes_something_is_in_the_audit_with_who_gave_it(
    run: Run, directory: Path, tmp_path: Path
) -> None:
    files = {"file": tmp_path / "one.yml", "other": tmp_path / "two.yml"}
    for number, file in enumerate(files.values()):
        file.write_bytes(file_of({"image": image(f"app{number}")}))
    before = _acts(directory)

    for words, act, about in STORY:
        failing = words.startswith(("node diagnose", "webhook test"))  # nobody answers
        who = "ben" if words.endswith("--by ben") else "ada"
        run(*words.format(**files).split(), "--by", who, expect=int(failing))
        acts = _acts(directory)
        told, before = acts[len(before) :], acts
        assert (act, about, who) in told, words
        assert len(told) == 1 or words.startswith("release approve"), words  # which publishes it
        assert {one for _, _, one in told} == {who}

    shown = run("audit", "--about", f"node/{UUID}").stdout
    assert "node.labelled" in shown
    assert "site=lab" in shown
    assert "sold" in shown


def _acts(directory: Path) -> list[tuple[str, str, str]]:
    plane = Plane.begin(directory)
    try:
        return [(row["act"], row["object"], row["actor"]) for row in plane.rows("audit")]
    finally:
        plane.end()


def test_reading_leaves_no_entry(run: Run, directory: Path) -> None:
    for words in sorted(READ):
        if words.endswith(("list", "bans")) or words == "audit":
            run(*words.split())

    assert _acts(directory) == []


def test_without_by_it_is_the_user_of_the_system(run: Run, directory: Path) -> None:
    from cloudly.cli.people import user

    run("fleet", "create", "shops")
    run("node", "rotate", "--all")  # nobody is there to be asked

    assert _acts(directory) == [("fleet.created", "fleet/shops", user())]


def test_a_token_for_an_image_is_in_the_audit(
    run: Run, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"deviceType": "raspberrypi4-64"}))
    monkeypatch.setenv("CLOUDLY_PUBLIC_URL", "https://cloudly.example:8443")

    run("image", "configure", str(config), "--new-token", "--token-name", "shelf")

    assert [(act, about) for act, about, _ in _acts(directory)] == [
        ("join_token.created", "join-token/1")
    ]


@both_engines
async def test_keys_that_were_accepted_are_in_the_audit(plane: Plane) -> None:
    from cloudly import keys

    keys.accept(plane.store, keys.of(plane.settings, plane.world), by=By("ada", 1_000))

    acts = [(row["act"], row["object"], row["actor"]) for row in plane.rows("audit")]
    assert acts == ([("key.accepted", "key/ticket", "ada")] if plane.store.is_shared else [])


# -- by Cloudly itself


@both_engines
async def test_what_nobody_ordered_is_in_no_audit(plane: Plane) -> None:
    device = await plane.device().enroll()
    good = plane.release("1.0.0")
    await device.tell("app-update/1", "offered", "succeeded", deployment=good)
    bad = plane.release("2.0.0")
    await device.tell("app-update/2", "offered", "rollback-needed", deployment=bad)

    new = join_tokens.NewToken(CANARY, "", 1, 1, HOUR_MS)
    plane.store.write_now(lambda db: join_tokens.create(db, new, by=None))

    assert plane.node()["wanted_version"] == "1.0.0"
    assert plane.rows("audit") == []
