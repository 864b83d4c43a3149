"""What operators do in the stories about channels, pins, floors and bans."""

from __future__ import annotations

from functools import partial
from typing import Any

from cloudly.cli.release import apply
from cloudly.governance.pins import Scope
from cloudly.rollouts.admission import Standing
from cloudly.store import audit, fleets, join_tokens
from cloudly.store.audit import By
from cloudly.store.fleets import Moved
from cloudly.store.governance import approving, bans, channels, following, pins, standing
from cloudly.store.governance.channels import Entry
from cloudly.store.governance.pins import Target
from cloudly.store.releases import NewRelease, define_release, find_release
from cloudly.tokens import new_join_token
from interfaces.desired import UpdatePolicy
from interfaces.world import new_id, now_ms
from tests.cloudly.given import HOUR_MS, UUID, Device, Plane, commit_of

DAY_MS = 24 * HOUR_MS


def digest_of(version: str) -> str:
    return f"sha256:{version.encode().hex():0<64}"


class Operator:
    """One person at one control plane."""

    def __init__(self, plane: Plane, name: str = "anna") -> None:
        self.plane = plane
        self.name = name

    def known_as(self, name: str) -> Operator:
        return Operator(self.plane, name)

    @property
    def by(self) -> By:
        return By(self.name, now_ms(self.plane.world))

    def do(self, work: Any, *args: Any, **options: Any) -> Any:
        return self.plane.store.write_now(lambda db: work(db, *args, **options))

    # -- releases and fleets

    def defines(self, *versions: str) -> list[int]:
        return [
            self.do(
                define_release,
                NewRelease(
                    commit_of(version),
                    version,
                    {"main": f"registry.example/app-{version}@{digest_of(version)}"},
                    {},
                ),
                1,
            )
            for version in versions
        ]

    def release(self, version: str) -> int:
        return int(self.do(find_release, version))

    def orders(self, version: str, node: str = UUID, *, again: bool = False) -> str:
        done = self.do(apply, version, UpdatePolicy(), node, again=again, by=self.name)
        return str(done[0].get("deployment") or done[0]["unchanged"])

    def wants(self, fleet: str, version: str) -> list[dict[str, Any]]:
        done: list[dict[str, Any]] = self.do(
            apply, version, UpdatePolicy(), None, again=False, fleet=fleet, by=self.name
        )
        return done

    def makes_fleet(self, name: str) -> int:
        return int(self.do(fleets.create, name, self.by.at_ms, by=self.by))

    def lets_in(self, device: Device, fleet: str) -> Any:
        """An ask with a join token of that fleet, to be awaited."""
        now, token = now_ms(self.plane.world), new_join_token(self.plane.world)
        number = self.do(fleets.find, fleet)["id"]
        self.do(join_tokens.create, join_tokens.NewToken(token, "", 9, now, now + HOUR_MS, number))
        return device.ask(token)

    def moves(self, fleet: str, node: str = UUID) -> Moved:
        number, world = self.plane.node(node)["id"], self.plane.world

        def work(db: Any) -> Moved:
            found, draw = fleets.find(db, fleet), partial(new_id, world)
            return fleets.move(db, number, found, new_id=draw, now_ms=now_ms(world), by=self.by)

        return self.plane.store.write_now(work)

    def follows(self, fleet: str, channel: str) -> None:
        self.do(
            lambda db: following.follow(
                db, fleets.find(db, fleet), channels.find(db, channel), self.by
            )
        )

    def unfollows(self, fleet: str) -> None:
        self.do(lambda db: following.unfollow(db, fleets.find(db, fleet), self.by))

    # -- channels

    def makes_channel(
        self, name: str = "stable", *, approvals: int | None = None, second_person: bool = False
    ) -> None:
        options = {"approvals_needed": approvals, "second_person": second_person}
        self.do(channels.create, name, self.by, **options)

    def _about(self, work: Any, version: str, channel: str, *args: Any, **options: Any) -> Entry:
        def decide(db: Any) -> Entry:
            found, release = channels.find(db, channel), find_release(db, version)
            done: Entry = work(db, found, release, self.by, *args, **options)
            return done

        return self.plane.store.write_now(decide)

    def proposes(self, version: str, channel: str = "stable", **options: Any) -> Entry:
        return self._about(channels.propose, version, channel, **options)

    def approves(self, version: str, channel: str = "stable", note: str = "") -> Entry:
        return self._about(approving.approve, version, channel, note=note)

    def refuses(self, version: str, channel: str = "stable", note: str = "it is bad") -> Entry:
        return self._about(approving.refuse, version, channel, note=note)

    def takes_back(self, version: str, channel: str = "stable") -> Entry:
        return self._about(approving.take_back, version, channel)

    def publishes(self, version: str, channel: str = "stable") -> Entry:
        return self._about(channels.publish, version, channel)

    def withdraws(self, version: str, channel: str = "stable", why: str = "it is bad") -> Entry:
        return self._about(channels.withdraw, version, channel, why)

    def floors(self, version: str, channel: str = "stable", *, on: bool = True) -> Entry:
        return self._about(channels.set_floor, version, channel, on=on)

    # -- pins and bans

    def _target(self, fleet: str | None, node: str) -> Target:
        if fleet is not None:
            return Target(Scope.FLEET, self.do(fleets.find, fleet)["id"], fleet)
        return Target(Scope.NODE, self.plane.node(node)["id"], node)

    def pins(
        self,
        version: str | None = None,
        *,
        fleet: str | None = None,
        node: str = UUID,
        until_ms: int | None = None,
        why: str = "black friday",
    ) -> None:
        release = None if version is None else self.release(version)
        until = None if until_ms is None else self.by.at_ms + until_ms
        target = self._target(fleet, node)
        self.do(pins.pin, target, release, self.by, reason=why, until_ms=until)

    def unpins(self, *, fleet: str | None = None, node: str = UUID) -> None:
        self.do(pins.unpin, self._target(fleet, node), self.by)

    def bans(self, what: str, why: str = "it eats flash") -> bans.Reach:
        reach: bans.Reach = self.do(bans.ban, what, self.by, why)
        return reach

    def unbans(self, what: str) -> None:
        self.do(bans.unban, what, self.by, "")

    # -- what is so then

    def standing(self, version: str, node: str = UUID) -> Standing:
        number, release = self.plane.node(node)["id"], self.release(version)
        seen: Standing = self.do(standing.standing_of, number, release, self.by.at_ms)
        return seen

    def next_step(self, version: str, node: str = UUID) -> str:
        number = self.plane.node(node)["id"]
        first = self.do(standing.next_step, number, self.release(version))
        return str(self.do(channels.version_of, first))

    def audited(self) -> list[tuple[str, str, str]]:
        """Oldest first."""
        rows = self.do(audit.listed)
        return [(row["actor"], row["act"], row["object"]) for row in reversed(rows)]

    def offers(self, channel: str = "stable") -> str | None:
        newest = self.do(lambda db: channels.newest(db, channels.find(db, channel)["id"]))
        return newest and str(newest["version"])


async def runs(device: Device, operator: Operator, version: str, number: int = 1) -> None:
    """The device is ordered that release and succeeds with it."""
    deployment = operator.orders(version, device.node_id)
    await device.tell(f"app-update/{number}", "applying", "succeeded", deployment=deployment)


async def wanted_of(device: Device) -> str | None:
    """The version that it is told to run."""
    app = (await device.beat()).json()["desired"]["app"]
    return None if app is None else str(app["version"])
