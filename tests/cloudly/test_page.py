"""The page: works by plain GET, live by events, and shows a node's text as text."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta
from pathlib import Path

import anyio
import httpx
import pytest

import cloudly
from cloudly.http.live import MOST, event
from cloudly.http.templates import moment
from cloudly.views import ago, presence_of
from tests.cloudly.given import UUID, Plane, bearer, code_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

STATIC = Path(cloudly.__file__).parent / "static"
EVIL = "<script>alert(1)</script>\"'&{{7*7}}"


async def page(plane: Plane, path: str = "/") -> str:
    answer = await plane.client.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


async def test_an_empty_page_says_what_to_do(plane: Plane) -> None:
    html = await page(plane)

    assert "cloudly token create" in html
    assert "BASEOS_CLOUDLY_URL=http://localhost" in html


async def test_a_node_is_listed_with_state_release_progress_and_what_it_waits_for(
    plane: Plane,
) -> None:
    device = await plane.device(hostname="kiosk-roof").enroll()
    deployment = plane.release("2.0.0", UUID)
    update = {
        "stream": "app-update/1", "deployment": deployment, "release": "c2",
        "version": "2.0.0", "state": "downloading", "progress_percent": 62,
    }  # fmt: skip
    waiting = {
        "stream": "app-update/1",
        "state": "downloading",
        "waits_for": "the last image",
        "owner": "supervisor",
    }
    await device.beat(reported={"update": update, "waiting": [waiting | {"since_ms": 1}]})

    html = await page(plane)

    assert f'href="/nodes/{UUID}"' in html
    for text in (
        "kiosk-roof",
        "online",
        "downloading",
        "the last image (supervisor)",
        "1 node · 1 online",
    ):
        assert text in html
    assert '<progress value="62" max="100">' in html


async def test_the_page_of_a_node_names_who_on_it_holds_updates_up(plane: Plane) -> None:
    device = await plane.device(hostname="kiosk-roof").enroll()
    lock = {
        "stream": "lock/1", "owner": "backup", "reason": "nightly backup <b>",
        "since_ms": 1_795_415_000_000, "until_ms": 1_795_415_600_000,
    }  # fmt: skip
    await device.beat(reported={"locks": [lock]})

    html = await page(plane, f"/nodes/{UUID}")

    assert "Update locks" in html
    assert (
        "backup since 2026-11-23 06:23:20 UTC until 2026-11-23 06:33:20 UTC: nightly backup &lt;b&gt;"
        in html
    )
    await device.beat()
    assert "Update locks" not in await page(plane, f"/nodes/{UUID}")


async def test_every_text_of_a_node_is_escaped(plane: Plane) -> None:
    device = plane.device(hostname=EVIL)
    await device.ask(plane.join_token(), device_type=EVIL, agent_version=EVIL)
    device.fact(EVIL, EVIL, EVIL, reason=EVIL)
    device.journals["core"][0]["kind"] = EVIL
    from journal.chain import link

    fields = {key: value for key, value in device.journals["core"][0].items() if key != "hash"}
    device.journals["core"][0]["hash"] = link(
        device.hash_at("core", 0), lane="core", **fields
    ).hex()
    update = {
        "stream": EVIL,
        "deployment": "d",
        "release": "c2",
        "version": EVIL,
        "state": EVIL,
        "progress_percent": 5,
    }
    waiting = {
        "stream": EVIL,
        "state": EVIL,
        "waits_for": EVIL,
        "owner": EVIL,
        "since_ms": 1,
        "then": EVIL,
    }
    reported = {
        "update": update, "waiting": [waiting], "degraded": [EVIL], "addresses": [EVIL], "host_os_version": EVIL,
        "locks": [{"stream": EVIL, "owner": EVIL, "reason": EVIL, "since_ms": 1, "until_ms": 2**60}],
        "boot_id": EVIL, "supervisor": {"available": True, "version": EVIL, "problem": EVIL},
    }  # fmt: skip
    assert (await device.beat(reported=reported, agent_version=EVIL)).status_code == 200
    assert (await device.ship()).status_code == 200

    for path in ("/", f"/nodes/{UUID}"):
        html = await page(plane, path)

        assert "alert(1)" in html  # it is shown
        assert "<script>alert" not in html
        assert EVIL not in html
        assert "49" not in re.findall(r"&amp;(\d\d)", html)
        assert all('"' not in found for found in re.findall(r'class="state ([^"]*)"', html))


async def test_the_policy_of_the_page_forbids_everything_from_elsewhere(plane: Plane) -> None:
    answer = await plane.client.get("/")

    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    html = answer.text
    assert not re.search(r"\s(on\w+|style)=", html)
    assert not re.search(r"<script(?![^>]*\ssrc=)", html)
    assert not re.search(r"(src|href)=\"(https?:)?//", html)


async def test_every_address_in_the_page_leads_somewhere(plane: Plane) -> None:
    await plane.device().enroll()
    html = await page(plane) + await page(plane, f"/nodes/{UUID}")

    for address in set(re.findall(r'(?:src|href)="(/[^"]*)"', html)):
        answer = await plane.client.get(address.replace("&amp;", "&"))
        assert answer.status_code == 200, address


async def test_the_node_page_tells_its_story_and_what_is_missing_in_it(plane: Plane) -> None:
    device = await plane.device().enroll()
    first = plane.release("1.0.0", UUID)
    await device.beat(
        reported={"release": "c0", "disk": {"total_bytes": 4 * 2**30, "free_bytes": 2**30}}
    )
    await device.tell(
        "app-update/1", "offered", "applying", "rollback-needed", deployment=first, reason="it fell"
    )
    for _ in range(5):
        device.fact("app-update/2", "a", "b")
    await device.ship(device.batch(7), oldest=7)

    html = await page(plane, f"/nodes/{UUID}")

    for text in (
        "rollback-needed",
        "it fell",
        "no last good release",
        "1.0 of 4.0 GiB",
        "3 in 1 gap",
    ):
        assert text in html, text
    assert html.index("<b>b</b>") < html.index("<b>applying</b>") < html.index("<b>offered</b>")


async def test_a_node_that_a_fresh_token_took_over_shows_it(plane: Plane) -> None:
    await plane.device().enroll()
    before = await page(plane, f"/nodes/{UUID}")
    plane.world.jump(timedelta(minutes=5))

    await plane.device(epoch="epoch-2").enroll()

    after = await page(plane, f"/nodes/{UUID}")
    assert "taken over" not in before
    assert after.count("taken over") == 1
    assert after.index("join token 2") < after.index("join token 1")


async def test_a_node_whose_halves_came_with_two_tokens_was_not_taken_over(plane: Plane) -> None:
    await plane.device().enroll()
    body = {"uuid": UUID, "api_key": "k" * 32}
    await plane.client.post("/device/register", json=body, headers=bearer(plane.join_token()))

    html = await page(plane, f"/nodes/{UUID}")

    assert "join token 2" in html
    assert "taken over" not in html


async def test_what_is_newer_in_memory_is_shown(plane: Plane) -> None:
    device = await plane.device().enroll()
    await device.beat(reported={"temperature_c": 40.0})
    await plane.world.sleep(1)
    await device.beat(reported={"temperature_c": 71.0})

    assert "71 °C" in await page(plane, f"/nodes/{UUID}")


async def test_a_silent_node_turns_late_and_then_offline(plane: Plane) -> None:
    device = await plane.device().enroll()
    await device.beat()

    seen = []
    for minutes in (1, 3, 20):
        plane.world.jump(timedelta(minutes=minutes))
        html = await page(plane)
        seen += re.findall(r'class="state (\w+)"', html)

    assert seen == ["online", "late", "offline"]
    assert presence_of(2.5) == "online"


@pytest.mark.parametrize(
    "host", ["cloudly.example", "192.0.2.7", "localhost.evil.example", "", "[::1", "[", "[]:x"]
)
async def test_a_name_that_is_not_this_machines_is_refused(plane: Plane, host: str) -> None:
    for path in ("/", "/live", f"/nodes/{UUID}", f"/nodes/{UUID}/live"):
        answer = await plane.client.get(path, headers={"host": host})

        assert answer.status_code == 421, host


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:8080"])
async def test_this_machines_names_are_taken(plane: Plane, host: str) -> None:
    assert (await plane.client.get("/", headers={"host": host})).status_code == 200


async def test_the_page_can_be_left_out(directory: Path) -> None:
    plane = Plane.begin(directory, page=False)

    for path in ("/", "/live", "/static/app.css", f"/nodes/{UUID}"):
        assert code_of(await plane.client.get(path)) == (404, "not-found")
    plane.end()


async def watch(plane: Plane, path: str, seconds: float, meanwhile: object = None) -> str:
    """What a live page hears within that time; then the server says that it is about to stop."""
    heard: list[httpx.Response] = []

    async def listen() -> None:
        heard.append(await plane.client.get(path, timeout=None))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await plane.world.sleep(2.5)
        if meanwhile is not None:
            await meanwhile()  # type: ignore[operator]
        await plane.world.sleep(seconds)
        plane.closing.now = True
    plane.closing.now = False
    assert heard[0].headers["content-type"].startswith("text/event-stream")
    return heard[0].text


async def test_a_new_node_appears_by_itself(plane: Plane) -> None:
    async def enroll() -> None:
        device = await plane.device(hostname="kiosk-new").enroll()
        await device.beat()

    heard = await watch(plane, "/live", 3, enroll)

    assert (
        'data: <hx-upsert hx-target="#nodes"' in heard or '<hx-upsert hx-target="#nodes"' in heard
    )
    assert "kiosk-new" in heard
    assert "1 node" in heard


async def test_only_the_rows_that_changed_are_sent(plane: Plane) -> None:
    first = await plane.device(hostname="kiosk-a").enroll()
    await plane.device("another", hostname="kiosk-b").enroll()

    async def beat() -> None:
        await first.beat()

    heard = await watch(plane, "/live", 3, beat)

    assert "kiosk-a" in heard
    assert "kiosk-b" not in heard


async def test_a_quiet_page_is_only_kept_alive(plane: Plane) -> None:
    await plane.device().enroll()

    heard = await watch(plane, "/live", 40)

    assert "data:" not in heard
    assert heard.count(": still here") == 2


async def test_what_another_process_writes_is_seen(plane: Plane) -> None:
    await plane.device().enroll()
    operator = Plane.begin(plane.directory, world=plane.world, database_url=plane.database_url)

    async def set_release() -> None:
        operator.release("3.1.4", UUID)

    heard = await watch(plane, f"/nodes/{UUID}/live", 3, set_release)

    assert "3.1.4" in heard
    operator.end()


async def test_a_node_that_falls_silent_is_seen_to_turn_late(plane: Plane) -> None:
    device = await plane.device().enroll()
    await device.beat()

    heard = await watch(plane, "/live", 200)

    assert 'class="state late"' in heard


async def test_there_are_never_more_live_pages_than_can_be_served(plane: Plane) -> None:
    answers: list[httpx.Response] = []

    async def listen() -> None:
        answers.append(await plane.client.get("/live", timeout=None))

    async with anyio.create_task_group() as tasks:
        for _ in range(MOST + 5):
            tasks.start_soon(listen)
        await plane.world.sleep(3)
        plane.closing.now = True

    assert sorted(one.status_code for one in answers) == [200] * MOST + [503] * 5


async def test_line_breaks_of_every_kind_stay_within_one_event() -> None:
    assert event("a\nb\r\nc\rd\u2028e") == "data: a\ndata: b\ndata: c\ndata: d\ndata: e\n\n"


async def test_the_vendored_files_are_the_ones_that_the_manifest_names() -> None:
    manifest = json.loads((STATIC / "vendor/manifest.json").read_text())
    there = {file.name for file in (STATIC / "vendor").iterdir()} - {"manifest.json"}

    assert set(manifest) == there
    for name, entry in manifest.items():
        assert (
            hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == entry["sha256"]
        ), name
        assert entry["package"] in (STATIC / "NOTICE").read_text()
        assert entry["version"] in (STATIC / "NOTICE").read_text()


async def test_all_assets_together_stay_small() -> None:
    import gzip

    files = [file for file in STATIC.rglob("*") if file.suffix in {".js", ".css"}]

    assert sum(len(gzip.compress(file.read_bytes())) for file in files) < 60_000


async def test_times_are_told_as_people_do() -> None:
    assert [ago(None, 0), ago(5000, 4000), ago(0, 59_999), ago(0, 60_000), ago(0, 7_200_000), ago(0, 172_800_000)] == [
        "never", "in the future", "59 s ago", "1 min ago", "2 h ago", "2 d ago",
    ]  # fmt: skip
    assert moment(2**62, 0) == moment(-1, 0) == "at an impossible time"
