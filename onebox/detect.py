"""Is this BaseOS? Three signals, and all of them: a variable, an address, and a handshake with who is there.

What other runtimes leave in the environment (balena's variables among it) counts neither for nor against it: BaseOS
runs on a host that sets them, and so do others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from interfaces.local import PROTOCOL, Handshake
from onebox.line import Address, AsyncLine, Call, Line, read_address
from onebox.problems import OneboxProblem
from onebox.runtime import AsyncBaseOSRuntime, BaseOSRuntime

KNOWN_PROTOCOLS = frozenset({PROTOCOL})
HANDSHAKE = Call("GET", "/v1/handshake", Handshake)


@dataclass(frozen=True, slots=True)
class NotBaseOS:
    """`reasons`: each signal that is missing, in words."""

    reasons: tuple[str, ...]


def detect(environment: Mapping[str, str]) -> BaseOSRuntime | NotBaseOS:
    """Look once, for at most some seconds. An agent that is just being restarted is waited for, for two."""
    address, reasons = _signals(environment)
    if address is None:
        return NotBaseOS(reasons)
    line = Line(address)
    try:
        handshake = line.ask(HANDSHAKE)
    except OneboxProblem as problem:
        line.close()
        return NotBaseOS((*reasons, _no_handshake(problem)))
    reasons += _unknown(handshake)
    if reasons:
        line.close()
        return NotBaseOS(reasons)
    return BaseOSRuntime(line, handshake)


async def detect_async(environment: Mapping[str, str]) -> AsyncBaseOSRuntime | NotBaseOS:
    """The same for an event loop."""
    address, reasons = _signals(environment)
    if address is None:
        return NotBaseOS(reasons)
    line = AsyncLine(address)
    try:
        handshake = await line.ask(HANDSHAKE)
    except OneboxProblem as problem:
        await line.close()
        return NotBaseOS((*reasons, _no_handshake(problem)))
    reasons += _unknown(handshake)
    if reasons:
        await line.close()
        return NotBaseOS(reasons)
    return AsyncBaseOSRuntime(line, handshake)


def _signals(environment: Mapping[str, str]) -> tuple[Address | None, tuple[str, ...]]:
    """Where to shake hands, if that is known; and what is missing so far."""
    reasons: tuple[str, ...] = ()
    runtime = environment.get("SERVEZONE_RUNTIME", "").strip()
    if runtime != "baseos":
        said = f"is {runtime[:40]!r}" if runtime else "is not set"
        reasons += (f"SERVEZONE_RUNTIME {said}, not 'baseos'",)
    url = environment.get("BASEOS_AGENT_URL", "").strip()
    if not url:
        return None, (*reasons, "BASEOS_AGENT_URL is not set: no handshake can be tried")
    try:
        token_file = environment.get("BASEOS_AGENT_TOKEN_FILE", "").strip()
        return read_address(url, token_file or None), reasons
    except ValueError as problem:
        return None, (*reasons, f"BASEOS_AGENT_URL is no address: {problem}")


def _no_handshake(problem: OneboxProblem) -> str:
    return f"the handshake failed: {problem}"


def _unknown(handshake: Handshake) -> tuple[str, ...]:
    if handshake.protocol in KNOWN_PROTOCOLS:
        return ()
    known = ", ".join(map(str, sorted(KNOWN_PROTOCOLS)))
    return (
        f"BaseRunner speaks protocol {handshake.protocol}, and this client {known}: update Onebox",
    )
