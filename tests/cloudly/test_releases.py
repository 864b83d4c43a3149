"""A release is made of a compose file, once and for ever, told to a Supervisor as it is, and applied by one."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cloudly.balena.compose.read import read_compose
from cloudly.cli.release import apply
from cloudly.problems import BadOrder
from cloudly.store import releases
from cloudly.store.releases import NewRelease, composed_release, define_release, find_release
from interfaces.desired import UpdatePolicy
from interfaces.target_verdict import faults_of
from simulators.world import run_virtual
from tests.cloudly.compose_files import file_of, image
from tests.cloudly.given import DIGEST, UUID, Plane, bearer
from tests.cloudly.test_command_line import Command
from tests.simulators.lab import a_lab

PAGE = Path(__file__).parents[2] / "docs" / "releases.md"
OLD_WAY = (
    '{"6ed0237ee31345bf8e22e93fd7b65839":{"apps":{"APP":{"class":"fleet","id":1,"is_host":false,"name":"baseos",'
    '"releases":{"c0ffee":{"id":1,"networks":{},"services":{"main":{"composition":{"restart":"always"},'
    '"environment":{},"id":1,"image":"registry.example/app@DIGEST","image_id":1,"labels":{"a.b":"c"},'
    '"running":true}},"volumes":{}}}}},"config":{},"name":"kiosk-1"}}'
)


@pytest.fixture
def run(directory: Path) -> Command:
    return Command(directory)


def example() -> bytes:
    """The compose file of the page."""
    found = re.search(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1].encode()


def make(plane: Plane, document: bytes, version: str = "1.0.0", commit: str | None = None) -> int:
    new = composed_release(read_compose(document), version, commit)
    return plane.store.write_now(lambda db: define_release(db, new, 1))


def sample(plane: Plane, release: int) -> dict[str, Any]:
    target = plane.store.read_now(
        lambda db: releases.sample_target(db, release, plane.store.app_uuid)
    )
    device: dict[str, Any] = target[releases.SAMPLE]
    return device


def the_release(device: dict[str, Any]) -> dict[str, Any]:
    (app,) = device["apps"].values()
    (release,) = app["releases"].values()
    return dict(release)


def by_images(commit: str, version: str, **images: str) -> NewRelease:
    return NewRelease(commit, version, images, {})


# -- what is told


def test_the_example_of_the_page_makes_a_release_that_says_all_of_it(plane: Plane) -> None:
    device = sample(plane, make(plane, example()))

    release = the_release(device)
    assert faults_of(device, releases.SAMPLE) == ()
    assert (release["volumes"], release["networks"]) == ({"baseos-data": {}}, {"shop": {}})
    assert release["services"]["baserunner"]["environment"] == {
        "BASEOS_CLOUDLY_URL": "https://cloudly.example"
    }
    assert release["services"]["kiosk"]["composition"] == {
        "depends_on": ["baserunner"],
        "command": ["kiosk", "--price", "5 $"],
        "ports": ["80:8080"],
        "volumes": [{"type": "tmpfs", "target": "/run/kiosk", "tmpfs": {"size": 8388608}}],
        "devices": ["/dev/dri:/dev/dri"],
        "healthcheck": {"test": ["CMD", "kiosk", "ping"], "startPeriod": "30s"},
        "networks": ["shop"],
    }


def test_the_page_is_short() -> None:
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) <= 80


def test_the_file_itself_is_kept_as_it_came(plane: Plane) -> None:
    make(plane, example())

    assert plane.rows("release")[0]["compose"].encode() == example()


@pytest.mark.anyio
async def test_a_release_made_of_images_gives_the_same_bytes_as_ever(plane: Plane) -> None:
    await plane.device().enroll()
    new = NewRelease(
        "c0ffee", "1", {"main": f"registry.example/app@{DIGEST}"}, {"main": {"a.b": "c"}}
    )
    plane.store.write_now(lambda db: apply(db, new, UpdatePolicy(), UUID, again=False))
    key = "k" * 32
    registered = await plane.client.post(
        "/device/register",
        json={"uuid": UUID, "api_key": key},
        headers=bearer(plane.join_token()),
    )
    assert registered.status_code == 201

    body = (await plane.client.get(f"/device/v3/{UUID}/state", headers=bearer(key))).text

    assert body == OLD_WAY.replace("APP", plane.store.app_uuid).replace("DIGEST", DIGEST)


def test_two_makings_of_one_file_are_one_release(plane: Plane) -> None:
    assert make(plane, example()) == make(plane, b"# again\n" + example())
    assert len(plane.rows("release")) == 1


# -- what is refused


@pytest.mark.parametrize(
    "changed",
    [
        file_of({"restart": "no"}),
        file_of({"environment": {"A": "1"}}),
        file_of({"labels": {"a": "1"}}),
        file_of({"image": image("main", "2")}),
        file_of(volumes={"data": {}}),
        file_of(networks={"net": {}}),
        file_of().replace(b'"main"', b'"other"'),
    ],
)
def test_the_same_commit_with_other_contents_is_refused(plane: Plane, changed: bytes) -> None:
    make(plane, file_of(), commit="c1")

    with pytest.raises(BadOrder, match="never changes"):
        make(plane, changed, commit="c1")


def test_a_second_digest_in_a_repository_of_an_earlier_release_is_refused(plane: Plane) -> None:
    """Trap 4 of the recordings: it would never be pulled, and the old container be called new."""
    make(plane, file_of({"image": f"r.example/app:1@sha256:{'1' * 64}"}))

    with pytest.raises(BadOrder) as refused:
        make(plane, file_of({"image": f"r.example/app:2@sha256:{'2' * 64}"}), "1.1.0")

    assert "service main" in str(refused.value)
    assert "r.example/app holds another image already: release 1.0.0" in str(refused.value)
    assert "repository of its own" in str(refused.value)
    assert [row["version"] for row in plane.rows("release")] == ["1.0.0"]


def test_the_same_digest_in_the_same_repository_may_be_in_many_releases(plane: Plane) -> None:
    make(plane, file_of())
    make(plane, file_of({"restart": "no"}), "1.1.0")

    assert len(plane.rows("release")) == 2


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ({"main": f"r.example/app@sha256:{'2' * 64}"}, "release 1.0.0"),
        (
            {"a": f"r.example/b@sha256:{'1' * 64}", "c": f"r.example/b@sha256:{'2' * 64}"},
            "its service a",
        ),
    ],
)
def test_the_rule_holds_for_images_on_the_command_line_too(
    plane: Plane, images: dict[str, str], says: str
) -> None:
    first = by_images("c1", "1.0.0", main=f"r.example/app@sha256:{'1' * 64}")
    plane.store.write_now(lambda db: define_release(db, first, 1))

    with pytest.raises(BadOrder, match=says):
        plane.store.write_now(lambda db: define_release(db, by_images("c2", "2", **images), 1))

    assert len(plane.rows("release")) == 1


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (NewRelease("c1", "1", {"main": image()}, {}, {"main": {"A-B": "1"}}), r"services\.main\.0\.environment\.A-B"),
        (NewRelease("c1", "1", {"bad name": image()}, {}), r"at services\.bad name"),
        (NewRelease("c1", "1", {"main": f"r.example/{'a' * 300}@{DIGEST}"}, {}), r"ShortString at services\.main"),
        (NewRelease("c1", "1", {"main": image()}, {}, volumes={"data": None}), r"Volume at volumes\.data"),
        (NewRelease("c1", "1", {"main": image()}, {}, networks={"a b": {}}), r"at networks\.a b"),
        (NewRelease("c1", "1", {"main": image()}, {"main": {"a b": "c"}}), r"labels\.a b"),
    ],
)  # fmt: skip
def test_what_a_supervisor_would_reject_is_refused_with_its_place_and_words(
    plane: Plane, new: NewRelease, says: str
) -> None:
    with pytest.raises(BadOrder, match=says):
        plane.store.write_now(lambda db: define_release(db, new, 1))

    assert plane.rows("release") == []


def test_a_label_for_a_service_that_there_is_not_is_refused(plane: Plane) -> None:
    new = NewRelease("c1", "1", {"main": image()}, {"mian": {"a": "b"}})

    with pytest.raises(BadOrder, match="a label for mian"):
        plane.store.write_now(lambda db: define_release(db, new, 1))


# -- finding one


def test_a_release_is_found_by_version_by_commit_and_by_its_beginning(plane: Plane) -> None:
    first = make(plane, file_of(), "1.0.0", "aaaa1111")
    second = make(plane, file_of({"restart": "no"}), "1.1.0", "aaaa2222")

    def found(wanted: str) -> int:
        return plane.store.read_now(lambda db: find_release(db, wanted))

    assert [found("1.0.0"), found("aaaa1111"), found("aaaa1")] == [first] * 3
    assert found("1.1.0") == second
    for wanted, says in (("aaaa", "means 2 releases"), ("9.9", "no release"), ("aa", "no release")):
        with pytest.raises(BadOrder, match=says):
            found(wanted)


def test_a_version_that_two_releases_have_is_not_guessed(plane: Plane) -> None:
    make(plane, file_of(), "1.0.0", "c1")
    make(plane, file_of({"restart": "no"}), "1.0.0", "c2")

    with pytest.raises(BadOrder, match="name the commit, c1 or c2"):
        plane.store.read_now(lambda db: find_release(db, "1.0.0"))


# -- a Supervisor applies it


def test_a_supervisor_applies_the_example_and_then_the_next_release(
    plane: Plane, tmp_path: Path
) -> None:
    newer = (
        example().replace(b"7c1e90@sha256:39", b"93aa01@sha256:40").replace(b"b52f04", b"f00d01")
    )
    targets = [sample(plane, make(plane, example())), sample(plane, make(plane, newer, "1.1.0"))]

    async def story() -> None:
        async with a_lab(tmp_path) as lab:
            for device in targets:
                await lab.apply({UUID: device})
                (release,) = next(iter(device["apps"].values()))["releases"].items()

                status = await lab.get("/v2/state/status")

                assert (status["appState"], status["release"]) == ("applied", release[0])
                wanted = {one["image"] for one in release[1]["services"].values()}
                assert {one["name"] for one in status["images"]} == wanted
                assert {one["status"] for one in status["containers"]} == {"Running"}
                assert len(status["containers"]) == 2
            (app,) = (await lab.get("/v2/local/target-state"))["state"]["local"]["apps"].values()
            mounts = [mount for one in app["services"] for mount in one["config"]["volumes"]]
            assert "1_baseos-data:/data" in mounts
            assert {"type": "tmpfs", "target": "/run/kiosk", "tmpfs": {"size": 8388608}} in mounts

    run_virtual(story)


def test_an_image_that_stays_under_its_name_keeps_the_next_release_from_ending(
    plane: Plane, tmp_path: Path
) -> None:
    """The recorded refusal of an engine, by the same call as in trap 4: this is why creating one warns."""
    newer = example().replace(b"7c1e90@sha256:39", b"93aa01@sha256:40")
    first, second = sample(plane, make(plane, example())), sample(plane, make(plane, newer, "2"))

    async def story() -> None:
        async with a_lab(tmp_path) as lab:
            await lab.apply({UUID: first})
            assert lab.source is not None
            lab.source.set_target({UUID: second})
            await lab.update()
            await lab.pass_(600)

            assert (await lab.get("/v2/state/status"))["appState"] == "applying"

    run_virtual(story)


def test_an_image_of_another_release_is_warned_about_and_ones_own_is_not(plane: Plane) -> None:
    def told(document: bytes, version: str) -> list[str]:
        make(plane, document, version)
        new = composed_release(read_compose(document), version)
        return plane.store.read_now(lambda db: releases.used_again(db, new))

    assert told(file_of(), "1.0.0") == []
    assert told(file_of(), "1.0.0") == []
    (warning,) = told(file_of({"restart": "no"}), "1.1.0")
    assert "service main: release 1.0.0 has this very image" in warning


# -- the command


def test_check_tells_every_problem_with_its_line_and_needs_no_database(
    run: Command, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.yml"
    bad.write_text("services:\n  web:\n    build: .\n  db:\n    image: db:1\n    expose: [80]\n")
    good = tmp_path / "good.yml"
    good.write_bytes(example())

    told = run("release", "check", str(bad), expect=1, CLOUDLY_DATA_DIR="").stdout.splitlines()
    found = json.loads(run("release", "check", str(bad), "--json", expect=1).stdout)

    assert [line.split()[:3] for line in told[1:4]] == [
        ["3", "refused", "services.web.build"],
        ["5", "refused", "services.db.image"],
        ["6", "warning", "services.db.expose"],
    ]
    assert [one["line"] for one in found["problems"]] == [3, 5]
    assert "kiosk" in run("release", "check", str(good), CLOUDLY_DATA_DIR="").stdout


def test_a_release_is_created_shown_and_ordered_without_its_images_again(
    run: Command, directory: Path, tmp_path: Path
) -> None:
    file = tmp_path / "compose.yml"
    file.write_bytes(example())

    made = run.json("release", "create", str(file), "--version", "2.1.0")
    before = run.json("release", "show", "2.1.0")
    run("release", "set", "--all", "2.1.0")
    after = run.json("release", "show", made["release"][:8])
    target = run.json("release", "show", "2.1.0", "--target")

    again = run("release", "create", str(file), "--version", "2.1.1").stderr
    assert again.count("has this very image") == 2
    assert (made["warnings"], made["used_again"]) == ([], [])
    assert re.fullmatch(r"[0-9a-f]{32}", made["release"])
    assert before["wanted_by"] == {"nodes": [], "fleets": []}
    assert after["wanted_by"] == {"nodes": [], "fleets": ["default"]}
    assert after["compose"].encode() == example()
    assert the_release(target[releases.SAMPLE])["volumes"] == {"baseos-data": {}}
    shown = run("release", "show", "2.1.0").stdout
    assert re.search(r'composition\.command +\["kiosk", "--price", "5 \$"\]', shown)
    assert "the fleet default" in shown
    with sqlite3.connect(directory / "cloudly.db") as db:
        assert db.execute("SELECT count(*) FROM deployment").fetchone() == (0,)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("create", "FILE"), 2, "--version"),
        (("create", "FILE", "--version", "a b"), 2, "--version"),
        (("create", "FILE", "--version", "1", "--release", "../c"), 2, "--release"),
        (("create", "BAD", "--version", "1"), 1, "line 2: services.web.build"),
        (("create", "NONE", "--version", "1"), 1, "No such file"),
        (("check", "NONE"), 1, "No such file"),
        (("show", "9.9"), 1, "no release '9.9'"),
        (("set", "--all", "9.9"), 1, "release create"),
        (("set", "--all", "1", "--image", f"main={image()}"), 2, "name it with --release"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_made(
    run: Command, tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    (tmp_path / "FILE").write_bytes(example())
    (tmp_path / "BAD").write_text("services:\n  web: {build: .}\n")
    paths = {name: str(tmp_path / name) for name in ("FILE", "BAD", "NONE")}

    done = run("release", *(paths.get(word, word) for word in words), expect=code)

    assert says in done.stderr
    assert run.json("release", "list") == []
