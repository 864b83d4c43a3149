"""The commands of channels, pins, bans and fleets; in this process, because they are many."""

from __future__ import annotations

import json
import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudly.cli import main
from tests.cloudly.given import UUID, Plane, commit_of
from tests.cloudly.governing import Operator, digest_of, runs

pytestmark = pytest.mark.anyio

OTHER = "d914fb90f7b9400bb7bf8fabf790030d"


@dataclass
class Done:
    stdout: str
    stderr: str


class Run:
    """`cloudly` with these words, on that directory."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._patch = patch

    def __call__(self, *words: str, expect: int = 0) -> Done:
        self._patch.setattr(sys, "argv", ["cloudly", *words])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = self._capsys.readouterr()
        assert (ended.value.code or 0) == expect, said.out + said.err
        return Done(said.out, said.err)

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json").stdout)


@pytest.fixture
def run(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    monkeypatch.setenv("CLOUDLY_DATA_DIR", str(directory))
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setenv("TERM", "dumb")
    return Run(capsys, monkeypatch)


@pytest.fixture
async def fleet(directory: Path) -> Path:
    """Two nodes; one runs 1.0.0."""
    plane = Plane.begin(directory)
    anna = Operator(plane)
    anna.defines("1.0.0", "1.1.0")
    device = await plane.device().enroll()
    await plane.device(OTHER, hostname="kiosk-2").enroll()
    await runs(device, anna, "1.0.0")
    anna.makes_fleet("shops")
    plane.store.write_now(
        lambda db: (
            db.execute(
                """UPDATE node SET fleet=2, labels='{"site":"lab"}' WHERE node_id=?""", (OTHER,)
            ).rowcount
        )
    )
    plane.end()
    return directory


@pytest.mark.usefixtures("fleet")
async def test_a_release_goes_through_a_channel(run: Run) -> None:
    run("channel", "create", "stable", "--second-person", "--by", "anna")
    run("channel", "propose", "stable", "1.0.0", "--floor", "--note", "first", "--by", "anna")
    waits = run("release", "approve", "1.0.0", "--channel", "stable", "--by", "anna").stdout
    no = run("release", "refuse", "1.0.0", "--channel", "stable", "--by", "cleo", "--note", "wait")
    run("release", "take-back", "1.0.0", "--channel", "stable", "--by", "cleo")
    done = run("release", "approve", "1.0.0", "--channel", "stable", "--by", "ben").stdout
    run("channel", "propose", "stable", "1.1.0", "--by", "ben")
    gone = run("channel", "withdraw", "stable", "1.1.0", "--reason", "old", "--by", "ben").stdout
    off = run("channel", "floor", "stable", "1.0.0", "off", "--by", "ben").stdout

    assert "it waits for the yes of 1 more person other than who proposed it" in waits
    assert "it was refused by cleo" in no.stdout
    assert done == "release 1.0.0 in channel stable: published\n"
    assert gone == "release 1.1.0 in channel stable: withdrawn\n"
    assert "no floor" in off
    table, shown = run("channel", "show", "stable").stdout, run.json("channel", "show", "stable")
    assert "published, offered" in table
    assert "ben withdrew it" in table
    assert [(one["version"], one["state"], one["floor"]) for one in shown["releases"]] == [
        ("1.1.0", "withdrawn", False),
        ("1.0.0", "published", False),
    ]
    assert shown["offers"] == commit_of("1.0.0")
    (listed,) = run.json("channel", "list")
    assert (listed["offers"], listed["second_person"], listed["waiting"]) == ("1.0.0", True, 0)
    assert [(act["actor"], act["act"]) for act in shown["acts"]][:2] == [
        ("ben", "channel.floor_lifted"),
        ("ben", "channel.withdrawn"),
    ]


@pytest.mark.usefixtures("fleet")
async def test_a_fleet_follows_a_channel_and_is_shown_with_figures(run: Run) -> None:
    run("channel", "create", "stable")
    run("channel", "propose", "stable", "1.1.0")

    run("fleet", "follow", "shops", "stable")
    default, shops = run.json("fleet", "list")
    refused = run("release", "set", "--fleet", "shops", "1.0.0", expect=1).stderr
    shown = run.json("fleet", "show", "default")

    assert (default["channel"], shops["channel"], shops["version"]) == (None, "stable", "1.1.0")
    assert "`cloudly fleet unfollow shops`" in refused
    assert (shown["nodes"], shown["releases"]) == (1, {"1.0.0": 1})
    assert sum(shown["states"].values()) == 1
    assert "new nodes get         1.1.0" in run("fleet", "show", "shops").stdout
    run("fleet", "unfollow", "shops")
    assert [row["channel"] for row in run.json("fleet", "list")] == [None, None]


@pytest.mark.usefixtures("fleet")
async def test_a_pin_is_set_listed_met_and_lifted(run: Run) -> None:
    told = run("pin", "node", UUID[:8], "1.0.0", "--reason", "black friday", "--until", "7d")
    run("pin", "fleet", "shops", "--reason", "audit", "--by", "anna")

    refused = run("release", "set", UUID[:8], "1.1.0", expect=1).stderr
    listed = {row["name"]: row for row in run.json("pin", "list")}

    assert f"`cloudly unpin node {UUID}` lifts it" in told.stdout
    assert "it is pinned to 1.0.0 by" in refused
    assert (listed[UUID]["version"], listed[UUID]["holds"]) == ("1.0.0", True)
    assert listed[UUID]["actor"] == pwd.getpwuid(os.getuid()).pw_name
    assert (listed["shops"]["version"], listed["shops"]["until_ms"]) == (None, None)
    assert "what it runs" in run("pin", "list").stdout
    assert "It is pinned to 1.0.0 by" in run("node", "show", UUID[:8]).stdout
    assert "with its fleet shops by anna" in run.json("node", "show", OTHER)["pinned"]
    run("unpin", "node", UUID[:8])
    run("unpin", "fleet", "shops")
    assert "Nothing is pinned." in run("pin", "list").stdout
    assert "generation" in run("release", "set", UUID[:8], "1.1.0").stdout


@pytest.mark.usefixtures("fleet")
async def test_a_ban_says_where_it_is(run: Run) -> None:
    told = run("release", "ban", digest_of("1.0.0"), "--reason", "CVE-1", "--by", "anna").stdout
    (listed,) = run.json("release", "bans")

    assert "1 nodes run it and keep it, 0 were ordered it" in told
    assert UUID[:12] in told
    assert (listed["digest"], listed["running"], listed["reason"]) == (
        digest_of("1.0.0"), 1, "CVE-1",
    )  # fmt: skip
    assert "banned by anna (CVE-1)" in run("release", "set", OTHER, "1.0.0", expect=1).stderr
    run("release", "unban", digest_of("1.0.0"))
    assert "Nothing is banned." in run("release", "bans").stdout


@pytest.mark.usefixtures("fleet")
async def test_nodes_are_listed_by_a_selector(run: Run) -> None:
    def found(select: str) -> list[str]:
        return [row["node_id"] for row in run.json("node", "list", "--select", select)]

    assert found("fleet=shops,label.site=lab") == [OTHER]
    assert found("version<1.1") == [UUID]
    assert found("version>=1.1") == []
    assert sorted(found("")) == sorted([UUID, OTHER])
    assert "No node is like that." in run("node", "list", "--select", "version>9").stdout
    more = run("node", "list", "--limit", "1")
    assert "there are more than these 1" in more.stderr
    assert OTHER[:12] in more.stdout
    assert "column 1: 'site' is nothing to select by" in (
        run("node", "list", "--select", "site=lab", expect=1).stderr
    )


@pytest.mark.usefixtures("fleet")
async def test_the_audit_tells_who_did_what(run: Run) -> None:
    run("fleet", "create", "labs", "--by", "anna")
    run("fleet", "move", UUID[:8], "labs", "--by", "ben")
    run("fleet", "remove", "shops", expect=1)

    acts = [(one["actor"], one["act"], one["object"]) for one in run.json("audit")]

    assert acts[:2] == [
        ("ben", "node.moved", f"node/{UUID}"),
        ("anna", "fleet.created", "fleet/labs"),
    ]
    assert [one["act"] for one in run.json("audit", "--about", "fleet/labs")] == ["fleet.created"]
    assert "anna" in run("audit", "--limit", "5").stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("channel", "propose", "stable", "1.0.0"), 1, "there is no channel 'stable'"),
        (("channel", "floor", "stable", "1.0.0", "up"), 2, "neither on nor off"),
        (("channel", "create", "a b"), 1, "is no name of a channel"),
        (("channel", "create", "a", "--by", " "), 1, "say who orders it"),
        (("channel", "withdraw", "stable", "1.0.0"), 2, "--reason"),
        (("pin", "node", UUID, "--reason", "x", "--until", "soon"), 2, "is no duration"),
        (("pin", "node", "nobody", "--reason", "x"), 1, "there is no node 'nobody'"),
        (("pin", "fleet", "nobody", "--reason", "x"), 1, "there is no fleet 'nobody'"),
        (("unpin", "fleet", "default"), 1, "fleet default is not pinned"),
        (("release", "ban", "sha256:1", "--reason", "x"), 1, "is no digest"),
        (("release", "approve", "1.0.0", "--channel", "c"), 1, "there is no channel 'c'"),
        (("fleet", "follow", "default", "stable"), 1, "there is no channel 'stable'"),
        (("fleet", "show", "nobody"), 1, "there is no fleet 'nobody'"),
    ],
)
def test_wrong_usage_says_what_is_wrong(
    run: Run, words: tuple[str, ...], code: int, says: str
) -> None:
    assert says in run(*words, expect=code).stderr


def test_empty_lists_say_so(run: Run) -> None:
    assert "cloudly channel create" in run("channel", "list").stdout
    assert "Nothing is pinned." in run("pin", "list").stdout
    assert "Nothing is banned." in run("release", "bans").stdout
    assert "Nobody has done anything yet." in run("audit").stdout
