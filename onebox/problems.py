"""What can go wrong between a neighbour and BaseRunner.

OneboxProblem
├── Unreachable     no answer, or none that BaseRunner would give: it is being restarted, or is not there
├── Refused         a clear no, with its code
├── LockLost        an update lock ended while its holder still needed it
└── DelegatedError  the neighbour tried what is BaseOS's to do
"""

from __future__ import annotations


class OneboxProblem(Exception):
    """Base of all of them. None holds a secret."""

    retry_after_s: float | None = None
    """None: trying again will not help."""


class Unreachable(OneboxProblem):
    """No answer from BaseRunner. `passing`: it may come back; it was tried again already."""

    def __init__(self, text: str, *, passing: bool = True) -> None:
        super().__init__(text)
        self.retry_after_s = 0.0 if passing else None


class Refused(OneboxProblem):
    """BaseRunner said no. `code`: see `interfaces/local.py`."""

    def __init__(
        self, status: int, code: str, detail: str, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(
            f"BaseRunner refused ({status} {code})" + (f": {detail}" if detail else "")
        )
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s


class LockLost(OneboxProblem):
    """The update lock ended too early: an update may have been applied since."""


class DelegatedError(OneboxProblem):
    """Replacing a container is BaseOS's to do."""
