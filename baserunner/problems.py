"""What the agent and its CLI can complain about. Each says what was tried, what was seen, what to do and whose fault.

    BaserunnerProblem
    ├── SettingsProblem     a setting is missing or malformed: the deployer's
    ├── IdentityProblem     state.json cannot be read or written: the device's disk, or a hand
    │   └── IdentityDamaged its contents are no identity: it is kept aside, a new one is drawn
    ├── LockProblem         the update lock cannot be taken or released
    ├── LeaseRefused        a neighbour or an operator asked for what a lease does not allow: who asked
    ├── LocalApiProblem     the local API cannot be served: the deployer's, or another agent's
    ├── EpochOver           this journal can no longer be continued: a new epoch begins
    └── NeighbourProblem    a neighbour did not answer as it should: the network's or the neighbour's
        ├── Unreachable     no answer at all, or not in time
        ├── Malformed       an answer that is not what was agreed
        ├── Refused         a clear no, with its code
        └── Locked          the Supervisor says a lock is in the way (423)

In normal operation a neighbour's problem becomes a fact or a value inside the package; none leaves it.
"""

from __future__ import annotations


class BaserunnerProblem(Exception):
    """Base of all of ours."""


class SettingsProblem(BaserunnerProblem):
    """A setting is missing or malformed."""


class IdentityProblem(BaserunnerProblem):
    """state.json cannot be read or written."""


class IdentityDamaged(IdentityProblem):
    """state.json can be read, and what it holds is no identity."""


class LockProblem(BaserunnerProblem):
    """The update lock cannot be taken or released."""


class LeaseRefused(BaserunnerProblem):
    """A clear no to who asked something of an update lock.

    `code`: `locked-out` (an update is being applied, or a reboot is under way), `busy` (too many leases), `conflict`
    (that request had a lease already), `not-found` (it has ended, or never was), `forbidden` (the key is of another),
    `unavailable` (this device cannot keep the promise now).
    """

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


class LocalApiProblem(BaserunnerProblem):
    """The local API cannot be served; the agent goes on without it, and tries again."""


class EpochOver(BaserunnerProblem):
    """This journal can no longer be continued. `why`: tail-lost, forked, fenced, salvaged (journal/succession.py)."""

    def __init__(self, why: str, text: str) -> None:
        super().__init__(text)
        self.why = why


class NeighbourProblem(BaserunnerProblem):
    """A neighbour did not answer as it should."""


class Unreachable(NeighbourProblem):
    """No answer at all, or not in time, or one that only says "not now" (5xx, 429).

    `retry_after_s`: what the neighbour asked for, if it did. `status`: of the answer, if there was one.
    """

    def __init__(
        self, text: str, *, retry_after_s: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s
        self.status = status


class Malformed(NeighbourProblem):
    """An answer that is not what was agreed: wrong type, wrong shape, too long."""


class Refused(NeighbourProblem):
    """A clear no, in our own problem format. `code`: see `interfaces.problem.Problem`."""

    def __init__(self, text: str, *, code: str, status: int) -> None:
        super().__init__(text)
        self.code = code
        self.status = status


class Locked(NeighbourProblem):
    """The Supervisor says a lock is in the way (423)."""
