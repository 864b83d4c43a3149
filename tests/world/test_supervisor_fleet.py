"""A fleet of simulated Supervisors in front of the real Cloudly: its balena contract holds for many."""

from __future__ import annotations

from pathlib import Path

import anyio
import httpx
import pytest

from cloudly.app import create_app
from cloudly.settings import Settings
from cloudly.store.join_tokens import NewToken
from cloudly.store.join_tokens import create as create_token
from cloudly.store.store import Store
from cloudly.tokens import new_join_token
from interfaces.world import now_ms
from simulators.fleet import Fleet, FleetSetup, SharedPool
from simulators.fleet.fleet import backend_setup
from simulators.world import SimWorld, run_virtual

DEVICES = 25


@pytest.mark.parametrize("uses", [DEVICES, DEVICES - 5])
def test_as_many_devices_join_as_the_token_admits_and_nobody_becomes_a_ghost(
    tmp_path: Path, uses: int
) -> None:
    async def story() -> tuple[Fleet, SharedPool]:
        cloud = SimWorld("cloud")
        store = Store.open(tmp_path / "cloudly", cloud)
        app = create_app(store, cloud, Settings(data_dir=tmp_path / "cloudly"))
        token = NewToken(new_join_token(cloud), "fleet", uses, now_ms(cloud), None)
        store.write_now(lambda db: create_token(db, token))
        pool = SharedPool(httpx.ASGITransport(app))
        backend = backend_setup(
            "https://cloudly.example",
            token.token,
            logs_url=None,
            plain_logs=False,
        )
        fleet = Fleet(FleetSetup(DEVICES, backend, tmp_path), SimWorld("fleet"), pool, pool)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fleet.run)
                await fleet.world.sleep(300)
                tally = fleet.tally()
                tasks.cancel_scope.cancel()
        finally:
            store.close()
        assert (tally.started, tally.registered) == (DEVICES, uses)
        return fleet, pool

    fleet, pool = run_virtual(story)

    assert pool.answers["POST 201"] == 4 * uses, "registered, two settings and a log stream each"
    assert pool.answers["GET 304"] >= uses, "unchanged targets are not sent again"
    assert pool.answers["PATCH 200"] >= uses
    assert (pool.answers["POST 401"] > 0) is (uses < DEVICES)
    assert len({supervisor.kept.identity.uuid for supervisor in fleet.supervisors}) == DEVICES
