"""What each state of the heartbeat does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from pydantic import SecretStr

from baserunner.drive import Happened, Later, Step
from baserunner.heartbeat.machine import Heartbeat
from baserunner.neighbours.cloudly import Cloudly
from baserunner.pace import next_heartbeat_s, retry_s
from baserunner.problems import Malformed, Refused, Unreachable
from interfaces.heartbeat import HeartbeatAnswer, HeartbeatRequest
from interfaces.world import World
from journal.recall import Stream

Attempt = Stream[Heartbeat]
Outcome = Happened | Later

NODE_GONE = frozenset({"node-unknown", "node-revoked", "fenced"})
"""Refusals after which only a new join token helps."""


class HeartbeatSteps:
    """The steps of one run of the agent."""

    def __init__(  # noqa: PLR0913 - its neighbours, each once
        self,
        *,
        cloudly: Cloudly,
        world: World,
        node_token: Callable[[], SecretStr],
        answered: Callable[[HeartbeatAnswer, SecretStr], Awaitable[None]],
        report: Callable[[], Awaitable[HeartbeatRequest]],
        min_s: float,
    ) -> None:
        """`node_token`: the one in use. `answered`: awaited after an answer, with the token that it was given to.

        `min_s`: never two heartbeats closer together than this, whoever wants one.
        """
        self._cloudly = cloudly
        self._world = world
        self._node_token = node_token
        self._answered = answered
        self._taken: tuple[HeartbeatAnswer, SecretStr] | None = None
        self._report = report
        self._min_s = min_s
        self._not_before = 0.0
        """By the monotonic clock: our own rule, and what Cloudly asked for (Retry-After), bind a wanted one too."""
        self.answer: HeartbeatAnswer | None = None
        """The last answer; to be believed once its fact is written."""
        self._wanted_now = True

    def want_now(self) -> None:
        """The next heartbeat is due as soon as it may be."""
        self._wanted_now = True

    @property
    def steps(self) -> Mapping[str, Step[Heartbeat]]:
        return {
            "resting": self.resting,
            "backing-off": self.resting,
            "sending": self.sending,
        }

    async def resting(self, attempt: Attempt) -> Outcome:
        if self._taken is not None:
            taken, self._taken = self._taken, None
            await self._answered(*taken)
        now = self._world.monotonic()
        left_s = max(0.0 if self._wanted_now else self._left_s(attempt), self._not_before - now)
        if left_s > 0:
            return Later(left_s)
        self._wanted_now = False
        self._not_before = now + self._min_s
        return Happened("heartbeat-sent", soon=True)

    async def sending(self, attempt: Attempt) -> Outcome:
        node_token = self._node_token()
        try:
            answer = await self._cloudly.heartbeat(await self._report(), node_token)
        except Refused as refusal:
            if refusal.code in NODE_GONE:
                return Happened(
                    "heartbeat-rejected", {"reason": str(refusal), "code": refusal.code}
                )
            return self._unanswered(attempt, str(refusal))
        except Unreachable as problem:
            return self._unanswered(attempt, str(problem), asked_s=problem.retry_after_s)
        except Malformed as problem:
            return self._unanswered(attempt, str(problem))
        self.answer, self._taken = answer, (answer, node_token)
        return Happened(
            "heartbeat-answered",
            {
                "generation": answer.desired.generation,
                "next_s": round(next_heartbeat_s(answer.heartbeat_every_s, self._world), 3),
                "incarnation": answer.incarnation,
            },
            soon=True,
        )

    def _unanswered(
        self, attempt: Attempt, reason: str, *, asked_s: float | None = None
    ) -> Happened:
        wait_s = retry_s(attempt.believed.misses + 1, self._world, asked_s=asked_s)
        if asked_s is not None:
            self._not_before = self._world.monotonic() + wait_s
        data = {"reason": reason, "retry_s": round(wait_s, 3)}
        return Happened("heartbeat-unanswered", data, soon=True)

    def _left_s(self, attempt: Attempt) -> float:
        entered = attempt.entered
        if entered is None or entered.boot_id != self._world.boot_id():
            return 0.0
        return attempt.believed.next_s - (self._world.monotonic() - entered.mono_ms / 1000)
