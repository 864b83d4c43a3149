"""Networks and volumes as the file declares them, and how a service joins: in the form the Supervisor takes.

Rules (compose/network.ts, compose/volume.ts, compose/service.ts):
- It knows no `external` and no `name`: it would make one of its own instead.
- It compares what it asked for with what the engine reports; what the engine reports otherwise (auxiliary addresses,
  a subnet without a gateway, link-local addresses) would be taken down and made again for ever: refused.
- A missing configuration is `{}`; it rejects the whole target for a null.
- Labels and options are mappings of text.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from cloudly.balena.compose.document import Kind, Mapping, Node, Scalar, Sequence
from cloudly.balena.compose.notes import quoted
from cloudly.balena.compose.values import (
    Reader,
    Reading,
    flag,
    kind_of,
    mapping,
    one_of,
    text,
    text_map,
    texts,
)
from interfaces.target_verdict import LABEL_NAME, MAX_NAME, SERVICE_NAME, SERVICE_NAME_RULE

DEFAULT: Final = "default"
SUPERVISORS: Final = "supervisor0"
DRIVERS: Final = ("bridge", "macvlan", "ipvlan", "host", "null")


def labels_of(node: Node, reader: Reader) -> dict[str, str]:
    found: dict[str, str] = text_map("a label")(node, reader)
    for name in found:
        if LABEL_NAME.fullmatch(name) is None or len(name) > MAX_NAME:
            reader.refuse(node, f"{quoted(name)} is no name of a label that the Supervisor takes")
    return found


def declared(
    node: Node | None, reader: Reader, *, of: str, known: dict[str, Reading]
) -> dict[str, Any]:
    """`volumes` or `networks` of the file: each name with its configuration, `{}` where there is none."""
    if node is None or _is_nothing(node):
        return {}
    if not isinstance(node, Mapping):
        reader.refuse(node, f"this must be a mapping of names, and is {kind_of(node)}")
        return {}
    found: dict[str, Any] = {}
    for name, item in node.items.items():
        if SERVICE_NAME.fullmatch(name) is None or len(name) > MAX_NAME:
            reader.refuse(item, f"{quoted(name)} is no name: {SERVICE_NAME_RULE}")
        found[name] = {} if _is_nothing(item) else mapping(_bare(item), reader, known, of=of)
    return found


def _is_nothing(node: Node) -> bool:
    return isinstance(node, Scalar) and node.kind is Kind.NULL


def _bare(node: Node) -> Node:
    """Without extension fields."""
    if not isinstance(node, Mapping):
        return node
    kept = {name: item for name, item in node.items.items() if not name.startswith("x-")}
    return Mapping(node.line, node.path, kept)


def names_in(node: Node | None) -> frozenset[str]:
    """The names that a section declares, before any of it is read."""
    if not isinstance(node, Mapping):
        return frozenset()
    return frozenset(node.items)


def subnets_in(node: Node | None) -> frozenset[str]:
    """The networks with an `ipam` configuration."""
    if not isinstance(node, Mapping):
        return frozenset()
    items = node.items.items()
    return frozenset(n for n, item in items if isinstance(item, Mapping) and "ipam" in item.items)


# -- what the file declares


def _refused(reason: str) -> Reading:
    def reading(node: Node, reader: Reader) -> None:
        reader.refuse(node, reason)

    return reading


_EXTERNAL = _refused(
    "the Supervisor makes its own and finds none that others made: leave `external` out"
)
_NAME = _refused("the Supervisor names it after the app: leave `name` out")


def _ipam(node: Node, reader: Reader) -> dict[str, Any]:
    return mapping(
        node,
        reader,
        {"driver": text, "config": _pools, "options": text_map("an option")},
        of="ipam",
    )


def _pools(node: Node, reader: Reader) -> list[dict[str, Any]] | None:
    if not isinstance(node, Sequence):
        reader.refuse(node, f"this must be a list, and is {kind_of(node)}")
        return None
    return [_pool(item, reader) for item in node.items]


def _pool(node: Node, reader: Reader) -> dict[str, Any]:
    known = {
        "subnet": _network_address,
        "gateway": _address(None),
        "ip_range": _network_address,
        "aux_addresses": _refused(
            "the Supervisor cannot hand this to the engine, and would make the network again for ever"
        ),
    }
    read = mapping(node, reader, known, of="an ipam configuration")
    if isinstance(node, Mapping) and not {"subnet", "gateway"} <= set(node.items):
        reader.refuse(
            node, "needs both subnet and gateway: otherwise the network is made again for ever"
        )
    return read


def _network_address(node: Node, reader: Reader) -> str | None:
    found = text(node, reader)
    if found is None:
        return None
    try:
        ipaddress.ip_network(found, strict=False)
    except ValueError:
        reader.refuse(node, f"{quoted(found)} is no network address such as 172.28.0.0/24")
        return None
    return found


def is_address(text: str, version: int | None = None) -> bool:
    try:
        return version in {None, ipaddress.ip_address(text).version}
    except ValueError:
        return False


def _address(version: int | None) -> Reading:
    def reading(node: Node, reader: Reader) -> str | None:
        found = text(node, reader)
        if found is None:
            return None
        if not is_address(found, version):
            reader.refuse(
                node, f"{quoted(found)} is no IP{f'v{version}' if version else ''} address"
            )
            return None
        return found

    return reading


VOLUME: Final[dict[str, Reading]] = {
    "driver": one_of("local", otherwise="an engine on a device has no volume plugins"),
    "driver_opts": text_map("an option"),
    "labels": labels_of,
    "external": _EXTERNAL,
    "name": _NAME,
}
NETWORK: Final[dict[str, Reading]] = {
    "driver": one_of(*DRIVERS, otherwise="an engine on a device has no other"),
    "driver_opts": text_map("an option"),
    "enable_ipv6": flag,
    "internal": flag,
    "ipam": _ipam,
    "labels": labels_of,
    "external": _EXTERNAL,
    "name": _NAME,
}

# -- how a service joins


def networks(node: Node, reader: Reader) -> list[str] | dict[str, Any] | None:
    """The networks of a service: names, or names with aliases and addresses."""
    if isinstance(node, Sequence):
        return [name for name in texts(node, reader) or [] if _is_known(name, node, reader)]
    if not isinstance(node, Mapping):
        reader.refuse(node, f"this must be a list of names or a mapping, and is {kind_of(node)}")
        return None
    joined: dict[str, Any] = {}
    for name, item in node.items.items():
        if _is_known(name, item, reader):
            joined[name] = (
                {}
                if _is_nothing(item)
                else mapping(item, reader, _JOIN, of="a network of a service")
            )
            if {"ipv4_address", "ipv6_address"} & set(
                joined[name]
            ) and name not in reader.scope.subnets:
                reader.refuse(item, f"an address needs a subnet: give {quoted(name)} one with ipam")
    return joined


def _is_known(name: str, at: Node, reader: Reader) -> bool:
    if name == SUPERVISORS:
        reader.refuse(
            at, "this is the Supervisor's: the label io.balena.features.supervisor-api joins it"
        )
    elif name != DEFAULT and name not in reader.scope.networks:
        reader.refuse(at, f"the network {quoted(name)} is not declared under the file's `networks`")
    else:
        return True
    return False


_JOIN: Final[dict[str, Reading]] = {
    "aliases": texts,
    "ipv4_address": _address(4),
    "ipv6_address": _address(6),
    "link_local_ips": _refused(
        "the Supervisor cannot read these back from the engine, and would make the container again for ever"
    ),
}


def network_mode(node: Node, reader: Reader) -> str | None:
    found = text(node, reader)
    if found is None:
        return None
    kind, colon, of = found.partition(":")
    if kind == "service" and colon:
        if of not in reader.scope.services:
            reader.refuse(node, f"there is no service {quoted(of)} in this file")
            return None
        return found
    if found not in {"bridge", "host", "none"}:
        reader.refuse(
            node,
            f"the Supervisor knows bridge, host, none and service:<name>, and not {quoted(found)}",
        )
        return None
    return found
