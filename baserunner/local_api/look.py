"""A look at the local API from outside, as a neighbour has it: for `baserunner doctor`."""

from __future__ import annotations

import httpx
from pydantic import ValidationError

from baserunner.finding import Finding
from baserunner.settings import LocalApi
from interfaces.local import HOST, SOCKET_FILE, TOKEN_FILE, Handshake

WHAT = "local api"
WITHIN_S = 5.0


async def look_at_local_api(chosen: LocalApi) -> Finding:
    """Shake hands over the socket."""
    path = chosen.directory / SOCKET_FILE
    try:
        token = (chosen.directory / TOKEN_FILE).read_text(encoding="ascii")
    except OSError as error:
        seen = f"no token can be read in {chosen.directory}: {error.strerror}"
        return Finding(
            "bad", WHAT, seen, "the agent makes it; its log says what keeps it from that"
        )
    transport = httpx.AsyncHTTPTransport(uds=str(path), verify=False)
    async with httpx.AsyncClient(transport=transport, timeout=WITHIN_S) as client:
        try:
            answer = await client.get(
                f"http://{HOST}/v1/handshake", headers={"Authorization": f"Bearer {token}"}
            )
        except httpx.HTTPError as error:
            seen = f"no answer at {path}: {error or type(error).__name__}"
            return Finding(
                "bad", WHAT, seen, "does the agent run? Its log says why it does not serve"
            )
    if answer.status_code != httpx.codes.OK:
        seen = f"{path} answers {answer.status_code}"
        return Finding("bad", WHAT, seen, "is BASEOS_LOCAL_API_UIDS without this uid?")
    try:
        protocol = Handshake.model_validate_json(answer.content).protocol
    except ValidationError:
        return Finding("bad", WHAT, f"what answers at {path} is not the agent", "see who serves it")
    return Finding("ok", WHAT, f"answers at {path}, protocol {protocol}")
