"""The update lock of a neighbour: a lease with an owner, a reason and an end. Pure.

Laws:
- A lease ends: released by who holds the key, broken by an operator, or expired. The three final states have no way out.
- Its end counts by the monotonic clock of one boot, from the fact that gave it its time: a wall clock that jumps neither
  ends nor extends it, and a restart of the agent changes nothing.
- After a boot of the host the rest counts once from the agent's first start (`resumed`), so that a holder that comes
  back can renew, and a dead one ends.
- No key is in any fact, only its SHA-256; the same for the id of the request, to which the key would be told again.

Source: the "eternal lock" troubles in balena-supervisor #810 and #1460: a lock there has no owner, reason or end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from journal.chart import Arrow, Chart, Waits
from journal.facts import Fact
from journal.recall import Machine

# fmt: off
CHART = Chart(
    name="lock",
    initial="new",
    arrows=(
        #     fact        from    to
        Arrow("acquired", "new",  "held"),
        Arrow("renewed",  "held", "held"),
        Arrow("resumed",  "held", "held"),
        Arrow("released", "held", "released"),
        Arrow("expired",  "held", "expired"),
        Arrow("broken",   "held", "broken"),
    ),
    waits={
        #              owner     waits for                                   deadline  then                                        resume
        "new":  Waits("us",     "the lease to be written",                   None,     "it is held",                               "nobody was told of it: it is asked for again"),
        "held": Waits("onebox", "its holder to release it, or its time to end", None,  "it expires, and what waits for it goes on", "the same end within one boot; after a boot of the host the rest of its time counts from the agent's start"),
    },
    final=frozenset({"released", "expired", "broken"}),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Lease:
    """What one lease believes. Durations in seconds."""

    lock: str = ""
    """Its id."""
    owner: str = ""
    holds_for: str = ""
    """The holder's reason, in words."""
    key_sha256: str = ""
    request_sha256: str = ""
    since_ms: int = 0
    """Wall clock, corrected as far as its error was known: for people."""
    ttl_s: float = 0.0
    """The time that was asked for last."""
    lasts_s: float = 0.0
    """Its time from `from_mono_ms` on."""
    boot_id: str = ""
    """The boot in which its time counts."""
    from_mono_ms: int = 0
    from_ms: int = 0
    """The same moment by the wall clock: for people."""
    boots: int = 0
    """How many boots of the host it has outlived since its holder was last heard."""
    ended_why: str = ""

    def left_s(self, boot_id: str, mono_s: float) -> float | None:
        """Seconds until it ends, never below 0; None: it is another boot, and its rest has not begun to count."""
        if boot_id != self.boot_id:
            return None
        return max(0.0, self.from_mono_ms / 1000 + self.lasts_s - mono_s)

    def rest_s(self, last_mono_ms: int | None) -> float:
        """What was left when its boot was last seen alive, `last_mono_ms` into it; never more than was asked for."""
        gone_ms = 0 if last_mono_ms is None else last_mono_ms - self.from_mono_ms
        return min(max(0.0, self.lasts_s - max(0, gone_ms) / 1000), self.ttl_s)

    @property
    def until_ms(self) -> int:
        """Its end by the wall clock as it was at its last fact: for people."""
        return self.from_ms + round(self.lasts_s * 1000)


def fold(believed: Lease, fact: Fact) -> Lease:
    """Source of every field: the fact of the same name in `leases.py`."""
    values = fact.values
    match fact.kind:
        case "acquired":
            lease = Lease(
                lock=values["lock"],
                owner=values["owner"],
                holds_for=values["reason"],
                key_sha256=values["key_sha256"],
                request_sha256=values["request_sha256"],
                since_ms=_believable_ms(fact),
            )
            return _counted_from(fact, replace(lease, ttl_s=values["ttl_s"]), values["ttl_s"])
        case "renewed":
            heard = replace(believed, ttl_s=values["ttl_s"], boots=0)
            return _counted_from(fact, heard, values["ttl_s"])
        case "resumed":
            return _counted_from(
                fact, replace(believed, boots=believed.boots + 1), values["rest_s"]
            )
        case "broken":
            return replace(
                believed, ended_why=f"broken by {values['by']}: {values['reason']}"[:MAX_WORDS]
            )
        case _:
            return replace(believed, ended_why=values["reason"])


MAX_WORDS = 2000
"""What a sentence on the wire may hold (`interfaces.wire.Line`)."""


def _counted_from(fact: Fact, lease: Lease, lasts_s: float) -> Lease:
    return replace(
        lease,
        lasts_s=lasts_s,
        boot_id=fact.boot_id,
        from_mono_ms=fact.mono_ms,
        from_ms=_believable_ms(fact),
    )


def _believable_ms(fact: Fact) -> int:
    return fact.at_ms + (fact.skew_ms or 0)


MACHINE = Machine(chart=CHART, start=Lease(), fold=fold)


def deadline_s(state: str, believed: Lease) -> float | None:
    """How long this state may last, in seconds from its entry; None: as long as it takes."""
    if state != "held":
        return CHART.waits[state].deadline_s
    return max(0.0, (believed.until_ms - believed.since_ms) / 1000)
