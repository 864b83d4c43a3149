"""How often a release that is no worse than its base rate is halted all the same: many seeded runs of the engine."""

from __future__ import annotations

from cloudly.rollouts.plan import HaltPolicy, Plan
from tests.rollouts.simulated import MINUTE, Simulation, fleet

SMALL = fleet(80)
AT_BASE = Plan(concurrency=30, halt=HaltPolicy(base_rate=0.05, worst_rate=0.2))


def false_halts(seeds: range, *, rate: float = AT_BASE.halt.base_rate) -> int:
    """How many of these runs are halted. A run that ends in another way than it may is an error."""
    halts = 0
    for seed in seeds:
        run = Simulation(seed, AT_BASE, SMALL, rate, every_ms=10 * MINUTE)
        ended = run.run()
        halts += ended.state == "halted"
        assert ended.state == "completed" or "failed" in ended.reason, f"seed {seed}: {ended}"
        assert ended.state in {"completed", "halted"}, f"seed {seed}: {ended}"
        if ended.state == "completed":
            assert ended.granted == len(SMALL), f"seed {seed}: somebody was forgotten"
    return halts
