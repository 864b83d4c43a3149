"""Clones, restored disks and a restored Cloudly, with the real agents and the real Cloudly: told, and ended well."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from baserunner.epochs import MOST
from baserunner.why import explain_all
from cloudly.export import verify
from cloudly.store.store import FILE, Store
from interfaces.why import lines
from interfaces.world import new_id
from journal.reader import open_reader
from simulators.world import SimWorld, run_virtual
from tests.world.kit import Place, Plugged, a_place
from tests.world.outside import Afterwards, altered

HEARTBEAT_S = 66.0
"""The interval that Cloudly sets, and its jitter."""


def a_clone(place: Place) -> Place:
    """Another host with a copy of this one's data directory. It shares the Supervisor's door, not its locks."""
    world = SimWorld("the other host")
    root = place.root / "clone"
    (root / "locks").mkdir(parents=True)
    clone = replace(
        place, root=root, world=world, uuid=new_id(world), lives=0, join_token=None,
        to_cloudly=Plugged(place.to_cloudly.inner), to_supervisor=Plugged(place.to_supervisor.inner),
    )  # fmt: skip
    shutil.copytree(place.data, clone.data, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
    return clone


async def page(place: Place, node_id: str) -> str:
    transport = httpx.ASGITransport(place.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get(f"/nodes/{node_id}")
    assert answer.status_code == 200
    return answer.text


def beats(place: Place) -> int:
    return sum(one.endswith("/heartbeat") for one in place.to_cloudly.requests)


def orders_to_apply(place: Place) -> int:
    return place.to_supervisor.requests.count("POST /v1/update")


def why(place: Place) -> str:
    """What `baserunner why` says."""
    with open_reader(place.home) as reader:
        return "\n".join(line for one in explain_all(reader) for line in lines(one))


def rows(place: Place, sentence: str) -> list[dict[str, Any]]:
    return place.store.read_now(lambda db: [dict(row) for row in db.execute(sentence)])


def chains_are_whole(place: Place) -> bool:
    nodes = [row["id"] for row in rows(place, "SELECT id FROM node")]
    checks = [
        one
        for node in nodes
        for one in place.store.read_now(lambda db: list(verify(db, node)))  # noqa: B023 - read at once
    ]
    assert sum(one.facts for one in checks) > 0
    return not [one for one in checks if one.problems]


def hold_in_staged(place: Place) -> None:
    """Once the update is staged, the Supervisor does not answer for a while."""

    def see(point: str) -> None:
        if point.startswith("after-commit:") and place.state("app-update/2") == "staged":
            place.to_supervisor.plugged = False
            place.points = lambda _: None

    place.points = see


async def all_is_shipped(place: Place) -> None:
    """Cloudly has the last durable core fact of this journal."""
    await place.until(lambda: place.core_at_cloudly()[-1:] == place.core_on_device()[-1:])


def test_of_two_devices_with_one_identity_one_is_fenced_applies_nothing_and_all_ends_well(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")  # where no app runs yet, no lock holds a Supervisor back
            hold_in_staged(place)
            place.set_release("1.1.0")
            await place.until_state("app-update/2", "staged")
            node_id = place.uuid

            clone = a_clone(place)
            clone.start_agent()
            await place.until(lambda: beats(clone) > 0, look_s=0.01)
            spoke = beats(place)
            await place.until_state("enrollment/2", "refused", within_s=HEARTBEAT_S)

            assert beats(place) == spoke + 1  # its very next word
            ordered = orders_to_apply(place)
            place.to_supervisor.plugged = True
            await place.world.sleep(1200)
            assert orders_to_apply(place) == ordered
            assert place.state("app-update/2") == "staged"
            assert (place.root / "locks" / "updates.lock").exists()
            assert "join token" in why(place)
            assert "another device" in why(place).lower()
            assert "fresh join token" in await page(place, node_id)
            assert clone.state("enrollment/2") is None

            place.give_token(place.make_token())
            await place.until_state("app-update/2", "succeeded")
            await clone.until(lambda: clone.state("enrollment/2") == "refused")
            assert "join token" in why(clone)
            clone.give_token(clone.make_token())
            await clone.until(lambda: clone.state("enrollment/2") == "enrolled")
            await place.world.sleep(600)

            assert clone.node().node_id != node_id
            assert [
                row["node_id"] for row in rows(place, "SELECT node_id FROM node ORDER BY id")
            ] == [
                node_id,
                clone.uuid,
            ]
            assert rows(place, "SELECT * FROM fence") == []
            assert place.node().state == "online"
            assert place.deployment_states() == ["succeeded"] * 2
            assert chains_are_whole(place)

    run_virtual(story)


def test_a_disk_that_was_copied_before_it_enrolled_enrolls_anew_with_a_fresh_token(
    tmp_path: Path,
) -> None:
    """Both have the same enrollment secret, and the copy was quicker."""

    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.to_cloudly.plugged = False
            place.join_token = place.make_token()
            place.start_agent()
            await place.until_state("enrollment/1", "backing-off")
            clone = a_clone(place)
            clone.join_token = clone.make_token()
            clone.start_agent()
            await clone.until_state("enrollment/1", "enrolled")
            await clone.until(lambda: beats(clone) > 0)

            place.to_cloudly.plugged = True
            await place.until_state("enrollment/1", "refused")
            assert "older state of it" in why(place)
            place.give_token(place.make_token())

            await place.until_state("enrollment/1", "enrolled")
            await clone.until_state("enrollment/2", "refused")
            assert place.node().state == "online"
            clone.give_token(clone.make_token())
            await clone.until_state("enrollment/2", "enrolled")
            assert clone.node().node_id != place.node().node_id
            assert chains_are_whole(place)

    run_virtual(story)


def test_a_data_directory_restored_from_a_backup_goes_on_in_a_new_epoch_and_the_story_is_complete(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            await all_is_shipped(place)
            await place.stop_agent()
            shutil.copytree(place.data, tmp_path / "backup")
            old = place.epoch()
            place.start_agent()
            place.set_release("1.1.0")
            await place.until_state("app-update/2", "succeeded")
            await all_is_shipped(place)
            before = place.core_at_cloudly()

            await place.stop_agent()
            shutil.rmtree(place.data)
            shutil.copytree(tmp_path / "backup", place.data)
            place.start_agent()
            await place.until(lambda: place.epoch() != old)
            await place.world.sleep(600)
            place.set_release("1.2.0")
            await place.until(lambda: place.deployment_states() == ["succeeded"] * 3)
            await all_is_shipped(place)

            epochs = rows(place, "SELECT * FROM epoch ORDER BY n")
            assert [row["epoch"] for row in epochs] == [old, place.epoch()]
            assert epochs[1]["predecessor"] == old
            assert epochs[1]["why"] in {"tail-lost", "forked"}
            assert before == [
                (event["seq"], event["hash"])
                for row in rows(
                    place,
                    "SELECT events FROM journal_chunk WHERE lane='core' AND epoch_n=1 ORDER BY first_seq",
                )
                for event in json.loads(row["events"])
            ]
            assert rows(place, "SELECT * FROM fence") == []
            assert chains_are_whole(place)

    run_virtual(story)


def test_what_a_cloudly_restored_from_a_backup_lost_is_shipped_again_and_gaps_are_explained(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.enrolled()
            await place.until(lambda: place.shipped_core() > 0)
            place.store.write_now(lambda db: db.execute("SELECT 1"))
            await place.stop_cloudly()
            backup = (tmp_path / "cloudly" / FILE).read_bytes()
            reopen(place)
            place.set_release("1.0.0")
            await place.until_state("app-update/1", "succeeded")
            await all_is_shipped(place)
            epoch, had = place.epoch(), place.core_at_cloudly()

            place.to_cloudly.plugged = place.to_backend.plugged = False
            await place.stop_cloudly()
            for file in (tmp_path / "cloudly").glob(FILE + "*"):
                file.unlink()
            (tmp_path / "cloudly" / FILE).write_bytes(backup)
            reopen(place)
            place.to_cloudly.plugged = place.to_backend.plugged = True
            assert len(place.core_at_cloudly()) < len(had)
            await place.until(lambda: place.core_at_cloudly()[-1:] >= had[-1:])
            await all_is_shipped(place)

            assert place.epoch() == epoch
            assert place.core_at_cloudly()[: len(had)] == had
            assert {row["why"] for row in rows(place, "SELECT why FROM lane_gap")} <= {
                "acked-before"
            }
            assert chains_are_whole(place)

    run_virtual(story)


def reopen(place: Place) -> None:
    """Cloudly starts again on the database that is there."""
    from cloudly.app import create_app
    from cloudly.http.live import Closing
    from cloudly.settings import Settings

    place.closing = Closing()
    place.store = Store.open(place.root / "cloudly", place.cloudly_world)
    settings = Settings(data_dir=place.root / "cloudly", heartbeat_every_s=60.0)
    place.app = create_app(place.store, place.cloudly_world, settings, closing=place.closing)
    place.to_cloudly.inner = httpx.ASGITransport(place.app)
    place.to_backend.inner = httpx.ASGITransport(place.app)


def test_a_cloudly_that_says_for_ever_that_the_journal_is_over_costs_a_few_epochs_and_little_flash(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            truth, told = place.to_cloudly.inner, orders_to_apply(place)

            async def ahead(
                _request: httpx.Request, answer: httpx.Response
            ) -> httpx.Response | None:
                if answer.status_code != 200 or "heard" not in answer.json():
                    return None
                heard = [{**one, "seq": one["seq"] + 1000} for one in answer.json()["heard"]]
                return altered(answer, heard=heard)

            liar = Afterwards(truth, ahead)
            place.to_cloudly.inner = liar
            place.set_release("1.1.0")
            await place.world.sleep(3 * 3600)
            settled = place.commits
            await place.world.sleep(6 * 3600)

            assert liar.fired > 0
            assert len(rows(place, "SELECT * FROM epoch")) <= 1 + MOST
            assert place.commits - settled < 6 * 4 * 10  # four looks an hour
            assert place.node().state == "degraded"
            assert orders_to_apply(place) == told
            place.to_cloudly.inner = truth
            await place.until(lambda: place.deployment_states() == ["succeeded"] * 2, within_s=3600)
            await all_is_shipped(place)
            assert chains_are_whole(place)

    run_virtual(story)
