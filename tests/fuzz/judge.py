"""The verdict on a trace: what was durable is at Cloudly, or Cloudly shows that it is missing.

What nobody outside the disk ever knew of (no heartbeat, no batch, no anchor told of it) and the disk then lost, cannot
be shown by anybody: it is counted as unknowable, and must be none where there is an anchor.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from journal.chain import link
from journal.facts import Lane
from journal.problems import JournalProblem
from journal.reader import open_reader
from journal.verify import verify
from tests.fuzz.ledger import Ledger, Written, content_of

if TYPE_CHECKING:
    from tests.fuzz.cloud import Cloud
    from tests.fuzz.device import Device


@dataclass
class Verdict:
    faults: list[str] = field(default_factory=list)
    drained: bool = False
    durable: int = 0
    unknowable: int = 0
    shown_as_gaps: int = 0

    @property
    def ok(self) -> bool:
        return self.drained and not self.faults


def judge(cloud: Cloud, devices: list[Device], ledger: Ledger) -> Verdict:
    verdict = Verdict()
    events = cloud.events()
    verdict.faults += out_of_order(events)
    if cloud.told.superseded_answered:
        verdict.faults.append(
            f"a superseded writer was answered {cloud.told.superseded_answered} x"
        )
    _losses(verdict, cloud, devices, ledger, events)
    verdict.drained = drained(devices[0])
    verdict.faults += _damage(devices[0])
    return verdict


def _losses(
    verdict: Verdict,
    cloud: Cloud,
    devices: list[Device],
    ledger: Ledger,
    events: list[tuple[str, str, dict[str, Any]]],
) -> None:
    there = {(epoch, lane, event["seq"], event["hash"]) for epoch, lane, event in events}
    contents = Counter(content_of(event) for _, _, event in events)
    gaps = [(g["epoch"], g["lane"], g["first_seq"], g["last_seq"]) for g in cloud.gaps()]
    gaps += _named(events)
    on_its_way = _on_its_way(devices[0])
    numbers, holes = cloud.holes()
    known = ledger.behind({*cloud.told.ends, *devices[0].anchored})
    for one in ledger.written:
        if not one.durable or one.device != devices[0].name:
            continue
        verdict.durable += 1
        if (one.epoch, one.lane, one.seq, one.hash) in there or contents[one.content]:
            continue
        if one.content in on_its_way:
            continue
        places = [(one.epoch, one.lane, one.seq), *ledger.copies.get(one.content, [])]
        if any(
            (e, la) == place[:2] and a <= place[2] <= b for e, la, a, b in gaps for place in places
        ) or (numbers[one.epoch] + 1 in holes if one.epoch in numbers else holes):
            verdict.shown_as_gaps += 1
        elif one.endangered and (one.epoch, one.lane, one.hash) not in known:
            verdict.unknowable += 1
        else:
            verdict.faults.append(f"lost in silence: {_name(one)}")


def _named(events: list[tuple[str, str, dict[str, Any]]]) -> list[tuple[str, str, int, int]]:
    """What first facts say of epochs, or branches of one, of which Cloudly never heard: the chapter's reason."""
    named = []
    for _, _, event in events:
        if event["kind"] != "epoch-began":
            continue
        data = json.loads(event["data"])
        known = data.get("known") or {}
        for one in [known, *known.get("before", [])]:
            named += [(one["epoch"], lane, 1, end) for lane, end in one.get("lanes", {}).items()]
        if data["why"] == "disk":
            named += [(data["from"], lane, 1, end["head"]) for lane, end in data["lanes"].items()]
    return named


def _on_its_way(device: Device) -> set[object]:
    """What is on the disk and not acked: nothing of it is lost, and whether it gets on is the matter of `drained`."""
    try:
        with open_reader(device.home) as reader:
            acked = {lane: reader.acked(lane).seq for lane in Lane}
            return {content_of(fact) for fact in reader.facts() if fact.seq > acked[fact.lane]}
    except (JournalProblem, OSError):
        return set()


def drained(device: Device) -> bool:
    """Whether all that the device has is at Cloudly, but for the heartbeats of the last minutes."""
    try:
        with open_reader(device.home) as reader:
            core = reader.head(Lane.CORE).seq - reader.acked(Lane.CORE).seq
            log = reader.head(Lane.LOG).seq - reader.acked(Lane.LOG).seq
    except (JournalProblem, OSError):
        return False
    return core == 0 and log < 40 and device.enrollment() == "enrolled"


def _damage(device: Device) -> list[str]:
    """What the journal that it ends with says of itself."""
    try:
        with open_reader(device.home) as reader:
            return [f"{p.lane} {p.seq} {p.what}" for p in verify(reader).problems[:3]]
    except (JournalProblem, OSError) as problem:
        return [str(problem)]


def out_of_order(events: Iterable[tuple[str, str, dict[str, Any]]]) -> list[str]:
    """Each fact once, in order, each chained to the one before it unless a gap lies between."""
    faults = []
    for (epoch, lane, before), (e, la, after) in pairwise(events):
        if (epoch, lane) != (e, la):
            continue
        if after["seq"] <= before["seq"]:
            faults.append(f"{lane} {after['seq']} came after {before['seq']}")
        elif after["seq"] == before["seq"] + 1 and not _follows(before, lane, after):
            faults.append(f"{lane} {after['seq']} does not follow from {before['seq']}")
    return faults


def _follows(before: dict[str, Any], lane: str, event: dict[str, Any]) -> bool:
    names = ("seq", "n", "stream", "kind", "src", "dst", "at_ms", "boot_id", "mono_ms", "skew_ms")
    values: dict[str, Any] = {name: event.get(name) for name in names}
    linked = link(bytes.fromhex(before["hash"]), lane=lane, data=event["data"], **values)
    return bool(linked.hex() == event["hash"])


def _name(one: Written) -> str:
    return f"{one.lane} {one.seq} of {one.epoch[:8]} ({one.content[0]} {one.content[1]})"
