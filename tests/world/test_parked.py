"""A stream that a newer agent wrote is parked, visibly; it is never skipped, and the rest goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from baserunner.orders import OrderKind
from baserunner.why import explain_all
from journal.facts import Lane, Stamp
from journal.journal import Journal
from journal.reader import open_reader
from simulators.world import run_virtual
from tests.world.kit import Place, a_place


def a_newer_agent_writes(place: Place, stream: str, kind: str, dst: str, *, final: bool) -> None:
    """While ours is stopped: a fact of a kind that ours does not know, at the end of that stream."""
    stamp = Stamp(at_ms=0, boot_id=place.world.boot_id(), mono_ms=0)
    with Journal.open(place.home, stamp=lambda: stamp, new_epoch=lambda: "unused") as journal:
        known = journal.stream(stream)
        src = known.state if known else "new"
        journal.append(stream, kind, src, dst, {"deployment": "d"}, lane=Lane.CORE, final=final)


async def parked_in_downloading(place: Place) -> None:
    await place.runs("1.0.0")
    place.set_release("1.1.0", behaviour="pull-fails")
    await place.until_state("app-update/2", "downloading")
    await place.stop_agent()
    a_newer_agent_writes(place, "app-update/2", "quarantined", "quarantined", final=False)


def test_an_update_of_a_newer_agent_is_parked_and_heartbeats_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await parked_in_downloading(place)
            before, told = place.facts("app-update/2"), len(place.supervisor.told)
            caplog.clear()

            place.start_agent()
            await place.world.sleep(1800)
            place.set_release("1.2.0")
            await place.world.sleep(1800)

            assert place.facts("app-update/2") == before
            assert place.state("app-update/3") is None
            assert len(place.supervisor.told) == told
            assert place.kinds("heartbeat/2").count("heartbeat-answered") > 50
            assert "parked" in place.node().state_detail
            assert [r.getMessage() for r in caplog.records if "parked" in r.getMessage()][1:] == []
            with open_reader(place.home) as reader:
                why = {one.stream: one for one in explain_all(reader)}["app-update/2"]
            assert (why.state, why.owner) == ("parked", "operator")
            assert "quarantined" in why.reason
            status = place.status()
            assert not status.healthy
            assert "app-update/2" in " ".join(status.problems)

    run_virtual(story)


def test_when_the_newer_agent_has_ended_it_the_older_one_goes_on_with_the_next(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await parked_in_downloading(place)
            place.start_agent()
            await place.world.sleep(120)
            await place.stop_agent()
            a_newer_agent_writes(place, "app-update/2", "released", "superseded", final=True)

            place.start_agent()
            last = place.set_release("1.2.0")

            await place.until_state("app-update/3", "succeeded")
            await place.until(lambda: place.node().release == last)

    run_virtual(story)


def test_a_reboot_of_a_newer_agent_holds_up_no_update(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            place.supervisor.host_update_in_progress = True
            place.order(OrderKind.REBOOT)
            await place.until_state("reboot/1", "refused")
            await place.stop_agent()
            a_newer_agent_writes(place, "reboot/2", "kexec-requested", "warm", final=False)

            place.start_agent()
            place.set_release("1.1.0")

            await place.until_state("app-update/2", "succeeded")
            assert place.kinds("reboot/2") == ["kexec-requested"]

    run_virtual(story)
