"""Where every device is at the end of a scene: what Cloudly counted, against what the device itself says and runs.

Three witnesses, and none of them takes the word of another:
- Cloudly's grants and counters;
- the device's own journal, read from its disk: what its update machine believes;
- the Supervisor: which image, by digest, its containers really run.

A device that they do not agree on is a fault, and so is one that is in no row, or in two.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from baserunner.app_update import machine as app_update
from cloudly.rollouts.counts import Counts, Outcome
from journal.facts import Fact, Lane
from journal.reader import Reader, open_reader
from journal.recall import recall
from tests.fleet.cloud import Cloud
from tests.fleet.witness import Witness
from tests.fuzz.judge import out_of_order

NEVER_ADMITTED = "never admitted"
MOST_FAULTS = 20
DYING = frozenset(app_update.CHART.states) - app_update.CHART.final


@dataclass(frozen=True, slots=True)
class Scene:
    """One rollout, and what every device ran before it."""

    rollout: int
    commit: str
    image: str
    before: Mapping[str, str]
    dead: frozenset[str]
    """Devices that were dead before it."""


@dataclass
class Accounts:
    devices: int
    rows: Counter[str] = field(default_factory=Counter)
    """Devices by where they are."""
    turned_back: int = 0
    """Of those that rolled back: as many really run what they ran before."""
    facts: int = 0
    """In the journals of all devices, each compared with what Cloudly has."""
    waiting: int = 0
    """Of these, facts that are to be shipped with the next start of their agent."""
    faults: list[str] = field(default_factory=list)

    @property
    def is_settled(self) -> bool:
        """Every device is in one row, and all witnesses agree."""
        return not self.faults and sum(self.rows.values()) == self.devices


def account(cloud: Cloud, devices: Sequence[Witness], scene: Scene, expected: int) -> Accounts:
    """`expected`: how many devices there must be."""
    accounts = Accounts(expected)
    grants, nodes = cloud.grants(scene.rollout), cloud.nodes()
    for device in devices:
        node = nodes.pop(device.uuid, None)
        if node is None:
            accounts.faults.append(f"{device.uuid}: Cloudly does not know this node")
            continue
        grant = grants.pop(device.uuid, None)
        row = NEVER_ADMITTED if grant is None else str(grant["outcome"] or "in flight")
        accounts.rows[row] += 1
        with open_reader(device.home) as reader:
            state = _believed(reader, scene.commit)
            why_not = _why_not(device, scene, row, state)
            accounts.faults += [f"{device.uuid} is {row}: {why_not}"] if why_not else []
            accounts.turned_back += state == "rolled-back"
            _compare(accounts, device, reader, list(_events(cloud, node)))
    accounts.faults += [f"{node}: a node of no device" for node in nodes]
    accounts.faults += [f"{node}: a grant of no device" for node in grants]
    accounts.faults += _counted(accounts, cloud.live(scene.rollout).counts)
    return accounts


def _believed(reader: Reader, commit: str) -> str:
    """The state of the device's attempt at this release; empty: it never heard of it."""
    for info in reversed(reader.streams("app-update")):
        attempt = recall(reader, info.name, app_update.MACHINE)
        if attempt.believed.target.commit == commit:
            return attempt.state
    return ""


def _why_not(device: Witness, scene: Scene, row: str, state: str) -> str:
    """Why the device is not where Cloudly has it; empty: it is."""
    before = scene.before[device.uuid]
    if row == Outcome.DARK:
        return "" if device.dead and state in DYING else f"it lives, and its journal says {state!r}"
    if device.dead and device.uuid not in scene.dead:
        return "it is dead"
    match row:
        case Outcome.SUCCEEDED:
            states, runs = {"succeeded"}, scene.image
        case Outcome.ROLLED_BACK if before:
            states, runs = {"rolled-back"}, before
        case (
            Outcome.ROLLED_BACK
        ):  # there is nothing to go back to: it waits, and its operator was called
            states, runs = {"rollback-needed"}, device.running
        case Outcome.FAILED:
            states, runs = {"failed"}, before
        case "never admitted":
            states, runs = {""}, before
        case _:
            return "that is no end"
    if state not in states:
        return f"its journal says {state or 'nothing of it'!r}"
    if device.running != runs:
        return f"its Supervisor runs {device.running or 'nothing'}"
    return ""


def _counted(accounts: Accounts, counts: Counts) -> Iterator[str]:
    """Cloudly's counters against the rows."""
    for outcome in Outcome:
        counted, found = getattr(counts, outcome.value), accounts.rows[outcome.value]
        if counted != found:
            yield f"Cloudly counts {counted} {outcome.value}, and there are {found}"
    if counts.in_flight:
        yield f"Cloudly counts {counts.in_flight} in flight"
    admitted = sum(accounts.rows.values()) - accounts.rows[NEVER_ADMITTED]
    if counts.granted != admitted:
        yield f"Cloudly counts {counts.granted} orders, and there are {admitted}"


Event = tuple[str, str, dict[str, object]]


def _events(cloud: Cloud, node: int) -> Iterator[Event]:
    for epoch, lane, text in cloud.chunks(node):
        for event in json.loads(text):
            yield epoch, lane, event


def _compare(accounts: Accounts, device: Witness, reader: Reader, there: list[Event]) -> None:
    """No fact lost, none twice, none that the device never wrote."""
    accounts.faults += [f"{device.uuid}: {fault}" for fault in out_of_order(there)]
    for lane in Lane:
        theirs = [(event["seq"], event["hash"]) for _, which, event in there if which == lane.value]
        facts = reader.facts(lane=lane)
        ours = [(fact.seq, fact.hash.hex()) for fact in facts]
        accounts.facts += len(ours)
        if theirs != ours[: len(theirs)]:
            seq = next(
                (one[0] for one, other in zip(ours, theirs, strict=False) if one != other), "?"
            )
            accounts.faults.append(f"{device.uuid}: {lane} {seq} is not what Cloudly has")
            continue
        left = facts[len(theirs) :]
        accounts.waiting += len(left)
        accounts.faults += _not_told(device, left)


def _not_told(device: Witness, left: Sequence[Fact]) -> Iterator[str]:
    """Only how a run of the agent ended is told with its next start; of a dead device also what came last."""
    for fact in left:
        if not device.dead and not fact.stream.startswith("heartbeat/"):
            yield f"{device.uuid}: Cloudly never heard of {fact.kind} in {fact.stream}"


__all__ = ["NEVER_ADMITTED", "Accounts", "Scene", "account"]
