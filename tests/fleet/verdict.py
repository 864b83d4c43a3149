"""What was promised of a fleet, and whether it was seen; in words, with the figures beside them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from simulators.demo.script import Verdict
from tests.fleet.accounts import NEVER_ADMITTED, Accounts
from tests.fleet.run import Run
from tests.fleet.scenes import BAD, GOOD, Asked, Played

MOST_FALSE_HALTS = 0.01
MOST_FAULTS = 20
AT_ONCE = 5
"""Failures that one look of the leading process counted together with the one that was enough."""


def judge(run: Run) -> Verdict:
    """Of both rollouts."""
    verdict = Verdict()
    by_version = {one.version: one for one in run.played}
    for version, check in ((GOOD, _good), (BAD, _bad)):
        played = by_version.get(version)
        verdict.check(f"the rollout of {version} was played", played is not None)
        if played is not None:
            check(verdict, played, run.asked)
            _accounted(verdict, played, run.asked.devices)
    return verdict


def _good(verdict: Verdict, played: Played, asked: Asked) -> None:
    verdict.check(
        f"a good release (bad on {asked.base_rate:.1%} of the devices) is rolled out to the end: "
        f"{played.ended.state}, {played.ended.counts.bad} failed",
        played.ended.state == "completed",
    )


def _bad(verdict: Verdict, played: Played, asked: Asked) -> None:
    ended, counts = played.ended, played.ended.counts
    verdict.check(
        f"a bad one ({asked.rate:.1%}) halts itself: {ended.state}, {counts.granted} of {asked.devices} devices had it",
        ended.state == "halted" and ended.by != "operator",
    )
    foretold = "no number" if played.foretold is None else str(played.foretold)
    verdict.check(
        f"with {played.failures} failures; `cloudly rollout dry-run` said {foretold} for that phase"
        f" ({counts.in_flight} more were in flight)",
        played.foretold is not None and played.failures <= played.foretold,
    )
    verdict.check(
        f"not later than it could know: {played.needed} were enough for {counts.succeeded} that succeeded"
        f" and {counts.in_flight} in flight",
        played.needed <= played.failures <= played.needed + AT_ONCE,
    )
    verdict.check(
        f"nobody was admitted after the halt ({played.admitted_after})", played.admitted_after == 0
    )


def _accounted(verdict: Verdict, played: Played, devices: int) -> None:
    accounts, rows = played.accounts, played.accounts.rows
    verdict.check(
        f"every device is accounted for after {played.version}: {_rows(accounts)}: {sum(rows.values())} of {devices}",
        accounts.is_settled,
    )
    verdict.check(
        f"{accounts.facts} facts in the journals of the devices: each at Cloudly once, in order,"
        f" but for {accounts.waiting} that go out with the next start",
        accounts.facts > accounts.waiting and not accounts.faults,
    )


def _rows(accounts: Accounts) -> str:
    ordered = sorted(accounts.rows.items(), key=lambda row: (row[0] == NEVER_ADMITTED, -row[1]))
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in ordered)


def check_false_halts(verdict: Verdict, halts: int, runs: int) -> None:
    verdict.check(
        f"of {runs} seeded runs of the engine at the base rate {halts} were halted ({halts / runs:.1%})",
        halts < runs * MOST_FALSE_HALTS,
    )


def faults(run: Run) -> Iterator[str]:
    """The first of them, for whoever has to find out."""
    for played in run.played:
        for fault in islice(played.accounts.faults, MOST_FAULTS):
            yield f"{played.version}: {fault}"


def lines(verdict: Verdict) -> Iterator[str]:
    for kept, promise in verdict.seen:
        yield f"{'kept  ' if kept else 'BROKEN'}  {promise}"


def costs(run: Run) -> str:
    devices = run.asked.devices
    return (
        f"{devices} devices, {run.hours:.1f} simulated hours in {run.wall_s:.0f} s;"
        f" {1000 * run.cpu_s / devices:.0f} ms CPU per device, {run.wakes / devices:.1f} starts of its agent;"
        f" {run.memory_mb:.0f} MB memory, {run.disk_mb:.0f} MB of journals and database"
    )
