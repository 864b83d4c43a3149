"""What the host OS of a device asks of its backend, beside its Supervisor: the time, and its configuration.

Rules:
- Both are answered to anybody: they say nothing.
- 204 with a Date, or the host's clock is never set: balenaOS asks `/connectivity-check` with HEAD until it gets a 204,
  and its NTP client waits for that. NetworkManager takes the same 204 for "this network reaches the internet".
- An empty configuration: no VPN, nothing to override. Any other answer than this shape lets the host ask again every
  ten seconds, for ever, with its key in each request.

Source: meta-balena (timesync-https, os-networkmanager) and os-config, read, not observed.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CONFIGURATION = {
    "services": {"openvpn": {"config": "", "ca": "", "up": "", "down": ""}},
    "config": {"overrides": {}},
}


def routes() -> list[Route]:
    return [
        Route("/connectivity-check", _connected, methods=["GET"]),  # and with it HEAD
        Route("/os/v1/config", _configuration, methods=["GET"]),
    ]


async def _connected(_request: Request) -> Response:
    return Response(status_code=204)


async def _configuration(_request: Request) -> Response:
    return JSONResponse(CONFIGURATION)
