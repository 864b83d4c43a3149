"""Halt by evidence: whether so many failures can still be the base rate, asked after every outcome.

The test. Of n nodes that were given the order, F have failed and all others have not, those in flight included. Weigh
every failure rate q by a Beta(a, b) density with a = 1 and mean `worst_rate`, and compare with the rate p:

    e(p) = ∫ q^F (1-q)^(n-F) Beta(q; a, b) dq / (p^F (1-p)^(n-F)) = B(a+F, b+n-F) / (B(a, b) p^F (1-p)^(n-F))

Halt when F/n > base_rate and e(base_rate) ≥ 1/alpha. The lower bound of the failure rate is the smallest p with
e(p) < 1/alpha, so halting and "the bound is above the base rate" are the same sentence.

Why it may be asked as often as one likes. If nodes fail with rate p, e(p) is a likelihood ratio, so its expectation
after the next node is what it was before: a non-negative martingale that starts at 1, which by Ville's inequality ever
reaches 1/alpha with a probability of at most alpha. So the bound is ever above the true rate with probability ≤ alpha;
and if the true rate is at most base_rate, halting (the bound above base_rate, hence above the truth) is no likelier.

Why nodes in flight count as not failed. Failures are often reported sooner than successes, which need a soak: judged
in the order of arrival, the first hundred outcomes of a perfectly good release may all be failures. Take nodes in the
order of their grants: a node in flight counted as not failed can only lower F, and e grows with F above the base rate,
so halting here implies that the martingale over the same n nodes, all outcomes known, has reached 1/alpha too. The
promise holds for any order and delay of outcomes. The price is power, bounded by `Plan.concurrency`.

The promise needs that each node fails with a probability of at most base_rate whatever became of the nodes before it.
Superseded nodes are left out, as if they had not been asked; so what supersedes a node must not look at how it fares.
After an operator resumes a halted rollout the test starts afresh, with alpha for each such start.

Sources: J. Ville, Étude critique de la notion de collectif (1939); H. Robbins, Statistical methods related to the law
of the iterated logarithm, Ann. Math. Stat. 41 (1970), the mixture; S. Howard, A. Ramdas, J. McAuliffe, J. Sekhon,
Time-uniform, nonparametric, nonasymptotic confidence sequences, Ann. Stat. 49 (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, lgamma, log

from cloudly.rollouts.counts import NOTHING, Counts
from cloudly.rollouts.plan import HaltPolicy

_STEPS = 60
"""Halvings of an interval: beyond the precision of a float."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the test sees. `others`: succeeded, or in flight."""

    failures: int = 0
    others: int = 0

    @property
    def nodes(self) -> int:
        return self.failures + self.others

    @property
    def rate(self) -> float:
        return self.failures / self.nodes if self.nodes else 0.0


def sample(counts: Counts, policy: HaltPolicy, *, set_aside: Counts = NOTHING) -> Sample:
    """From the counts of all phases; `set_aside`: what was settled when an operator last resumed a halted rollout."""
    failures = _failures(counts, policy) - _failures(set_aside, policy)
    still_good = max(counts.succeeded - set_aside.succeeded, 0)
    return Sample(failures=max(failures, 0), others=still_good + counts.in_flight)


def _failures(counts: Counts, policy: HaltPolicy) -> int:
    return counts.bad if policy.dark_counts else counts.bad - counts.dark


@dataclass(frozen=True, slots=True)
class Evidence:
    """The verdict on one sample, and its grounds."""

    sample: Sample
    halt: bool
    e_value: float
    """How much likelier the outcomes are under a worse rate than under the base rate; inf beyond a float."""
    at_least: float
    """The lower bound of the failure rate, with confidence 1 - alpha."""
    why: str
    """In words, for people."""


def judge(sample: Sample, policy: HaltPolicy) -> Evidence:
    """Whether to halt, with everything that is told of it. For the verdict alone `must_halt` is cheaper."""
    log_e = log_e_value(sample, policy.base_rate, policy)
    at_least = lower_bound(sample, policy)
    return Evidence(
        sample=sample,
        halt=must_halt(sample, policy),
        e_value=exp(log_e) if log_e < 700 else inf,
        at_least=at_least,
        why=_words(sample, at_least, policy),
    )


def must_halt(sample: Sample, policy: HaltPolicy) -> bool:
    """The verdict: some microseconds, so that a check-in can ask it of the counters as they are."""
    if policy.most_failures is not None and sample.failures >= policy.most_failures:
        return True
    if sample.failures < policy.min_failures or sample.rate <= policy.base_rate:
        return False
    return log_e_value(sample, policy.base_rate, policy) >= -log(policy.alpha)


def log_e_value(sample: Sample, rate: float, policy: HaltPolicy) -> float:
    """The logarithm of e(rate); `rate` lies between 0 and 1, both excluded."""
    a, b = 1.0, 1.0 / policy.worst_rate - 1.0
    failures, others = sample.failures, sample.others
    mixture = _log_beta(a + failures, b + others) - _log_beta(a, b)
    return mixture - failures * log(rate) - others * log(1.0 - rate)


def lower_bound(sample: Sample, policy: HaltPolicy) -> float:
    """The smallest failure rate that the outcomes leave possible; 0 without failures."""
    if not sample.failures:
        return 0.0
    threshold, low, high = -log(policy.alpha), 0.0, sample.rate
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if not 0.0 < middle < 1.0 or middle in {low, high}:
            break
        if log_e_value(sample, middle, policy) >= threshold:
            low = middle
        else:
            high = middle
    return low


def failures_to_halt(successes: int, policy: HaltPolicy, *, in_flight: int = 0) -> int:
    """How many failures halt when so many nodes have succeeded and so many others are in flight: the prediction."""
    others = successes + in_flight
    low, high = 0, policy.min_failures
    while not must_halt(Sample(high, others), policy):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if must_halt(Sample(middle, others), policy):
            high = middle
        else:
            low = middle
    return high


def failures_of(nodes: int, policy: HaltPolicy) -> int | None:
    """How many of so many nodes must fail to halt; None: too few nodes, even if all fail."""
    if not must_halt(Sample(nodes, 0), policy):
        return None
    low, high = 0, nodes
    while high - low > 1:
        middle = (low + high) // 2
        if must_halt(Sample(middle, nodes - middle), policy):
            high = middle
        else:
            low = middle
    return high


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _words(sample: Sample, at_least: float, policy: HaltPolicy) -> str:
    if not sample.nodes:
        return "no node has been given the order yet"
    base = f"the base rate is {_percent(policy.base_rate)}"
    many = f"{sample.failures} of {sample.nodes} failed"
    if not sample.failures:
        return f"{many}; {base}"
    sure = _percent(1.0 - policy.alpha)
    words = f"{many} ({_percent(sample.rate)}, at least {_percent(at_least)} with {sure} confidence); {base}"
    if policy.most_failures is not None and sample.failures >= policy.most_failures:
        words += f", and {policy.most_failures} failures are the most that its operator allows"
    return words


def _percent(share: float) -> str:
    """Two digits at least, and never more than there are: `17.5 %`, `2 %`, `0.05 %`, `99.5 %`."""
    percent = share * 100
    digits = 1 if percent >= 1 else 2 if percent >= 0.1 else 3
    return f"{percent:.{digits}f}".rstrip("0").rstrip(".") + " %"
