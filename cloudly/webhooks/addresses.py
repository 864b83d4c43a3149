"""Where a webhook may point: nobody may make us knock at doors that only we can reach.

Rules:
- Only http and https, no name or password in the URL, and by default only public addresses: all that a name means.
- Looked at when a webhook is made, and each time before a connection: a name may mean something else by then. The
  connection goes to the very address that was looked at.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpcore
import httpx

from cloudly.problems import BadOrder

LONGEST_URL = 2000
EMBEDDING = tuple(
    ip_network(one) for one in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)
"""IPv6 addresses that mean an IPv4 one somewhere: NAT64, 6to4, Teredo, and the old compatible form."""
ALLOW = "if it is meant, say --allow-private when the webhook is made"

Meanings = Callable[[str, int, float | None], Awaitable[Sequence[str]]]
"""All addresses of a name: host, port, how long it may take."""


class NotPublic(httpcore.ConnectError):
    """The name means an address that is not public."""


def checked_url(url: str) -> str:
    """The URL as it may be used. Raises BadOrder, which does not repeat it: a path may be a secret."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if (
        not whole
        or not url.isascii()
        or not url.isprintable()
        or len(url) > LONGEST_URL
        or " " in url
    ):
        raise BadOrder("the URL must be https://host/path or http://host/path, in ASCII")
    if parts.username is not None or parts.password is not None:
        raise BadOrder("the URL may hold no name and no password: the signature says who we are")
    if parts.fragment:
        raise BadOrder("the URL may have no fragment (#…): it would not be sent")
    return url


def is_public(address: str) -> bool:
    """Whether anyone on the internet could reach it as well."""
    try:
        known = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(known, IPv6Address):
        if known.ipv4_mapped is not None:
            known = known.ipv4_mapped
        elif any(known in network for network in EMBEDDING):
            return False
    return _is_global(known)


def _is_global(known: IPv4Address | IPv6Address) -> bool:
    return known.is_global and not (known.is_multicast or known.is_reserved)


def not_public(addresses: Iterable[str]) -> str | None:
    """The first that is not; None: all are."""
    return next((one for one in addresses if not is_public(one)), None)


def place_of(url: str) -> tuple[str, int]:
    """Host and port."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def check_target(url: str) -> None:
    """What its name means now. Raises BadOrder."""
    host, port = place_of(url)
    try:
        found = [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        raise BadOrder(f"{host} means no address: is the name right?") from None
    private = not_public(found)
    if private is not None:
        raise BadOrder(f"{host} is {private}, which is not a public address: {ALLOW}")


class PublicOnly(httpcore.AsyncNetworkBackend):
    """Connects to public addresses; all that a name means must be."""

    def __init__(
        self, inner: httpcore.AsyncNetworkBackend, meanings: Meanings | None = None
    ) -> None:
        self._inner = inner
        self._meanings = meanings or resolved

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._meanings(host, port, timeout)
        private = not_public(addresses)
        if private is not None:
            raise NotPublic(f"it is {private}, which is not a public address: {ALLOW}")
        return await self._inner.connect_tcp(
            addresses[0], port, timeout, local_address, socket_options
        )

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


async def resolved(host: str, port: int, patience_s: float | None) -> Sequence[str]:
    try:
        with anyio.fail_after(patience_s):
            found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise httpcore.ConnectTimeout("its name was not resolved in time") from None
    except (OSError, UnicodeError) as problem:
        raise httpcore.ConnectError("its name means no address") from problem
    addresses = [str(one[4][0]) for one in found]
    if not addresses:
        raise httpcore.ConnectError("its name means no address")
    return addresses


def transport(*, allow_private: bool, root_ca: Path | None, most: int) -> httpx.AsyncBaseTransport:
    """How deliveries reach receivers: no proxy, no redirect, no cookie, no retry."""
    trusted = _trusted(root_ca)
    made = httpx.AsyncHTTPTransport(verify=trusted, trust_env=False)
    if not allow_private:
        # httpx lets nobody choose the backend; its pool is httpcore's, which does.
        made._pool = httpcore.AsyncConnectionPool(  # noqa: SLF001
            ssl_context=trusted,
            max_connections=most,
            max_keepalive_connections=most,
            keepalive_expiry=30.0,
            network_backend=PublicOnly(httpcore.AnyIOBackend()),
        )
    return made


def one_way(allow_private: bool, root_ca: Path | None) -> httpx.AsyncBaseTransport:  # noqa: FBT001 - as it is kept
    """For one request."""
    return transport(allow_private=allow_private, root_ca=root_ca, most=1)


def _trusted(root_ca: Path | None) -> ssl.SSLContext:
    trusted = httpx.create_ssl_context(trust_env=False)
    trusted.load_default_certs()
    if root_ca is not None:
        trusted.load_verify_locations(root_ca)
    return trusted
