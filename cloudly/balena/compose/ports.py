"""Published ports, as the Supervisor's own short form: what it cannot parse would stop every apply.

Rules (compose/ports.ts): text, never a number; `[address:][host:]container[/protocol]`, ranges of equal length; an IPv6
address without brackets; a container port alone is published at the same number.
"""

from __future__ import annotations

import re
from typing import Any, Final

from cloudly.balena.compose.document import Kind, Mapping, Node, Scalar, Sequence
from cloudly.balena.compose.networking import is_address
from cloudly.balena.compose.notes import quoted
from cloudly.balena.compose.values import Reader, kind_of, mapping, one_of, text, whole

FORM: Final = re.compile(
    r"(?:(?:(?P<address>[a-fA-F0-9.:]{1,45}):)?(?P<host>[0-9]{1,5})(?:-(?P<host_end>[0-9]{1,5}))?:)?"
    r"(?P<inner>[0-9]{1,5})(?:-(?P<inner_end>[0-9]{1,5}))?(?:/(?P<protocol>tcp|udp))?"
)
HOW: Final = 'write it as "8080:80", "127.0.0.1:8080:80/tcp" or "8000-8005:9000-9005"'


def ports(node: Node, reader: Reader) -> list[str] | None:
    if not isinstance(node, Sequence):
        reader.refuse(node, f"this must be a list, and is {kind_of(node)}")
        return None
    found = [_port(item, reader) for item in node.items]
    return [port for port in found if port is not None]


def _port(node: Node, reader: Reader) -> str | None:
    short = _shortened(node, reader) if isinstance(node, Mapping) else _written(node, reader)
    if short is None:
        return None
    form = FORM.fullmatch(short)
    if form is None:
        reader.refuse(node, f"{quoted(short)} is no port that the Supervisor can parse: {HOW}")
        return None
    inner = _range(form["inner"], form["inner_end"])
    host = inner if form["host"] is None else _range(form["host"], form["host_end"])
    if form["host_end"] is None and form["host"] is not None and len(inner) > 1:
        reader.refuse(node, f"{quoted(short)}: a range needs a range of host ports: {HOW}")
    elif len(inner) != len(host) or not inner:
        reader.refuse(node, f"{quoted(short)}: both ranges must grow and be equally long")
    elif not 0 < inner[0] <= inner[-1] < 65536 or not 0 < host[0] <= host[-1] < 65536:
        reader.refuse(node, f"{quoted(short)}: a port is between 1 and 65535")
    elif form["address"] and not is_address(form["address"]):
        reader.refuse(node, f"{quoted(form['address'])} is no address of the host: {HOW}")
    elif _is_free(form["address"] or "", form["protocol"] or "tcp", host, node, reader):
        if form["host"] is None:
            reader.warn(node, "without a host port the Supervisor publishes it at the same number")
        return short
    return None


def _range(first: str, last: str | None) -> range:
    return range(int(first), int(last or first) + 1)


def _written(node: Node, reader: Reader) -> str | None:
    if isinstance(node, Scalar) and node.kind is Kind.INTEGER:
        return node.written
    return text(node, reader)


def _shortened(node: Mapping, reader: Reader) -> str | None:
    """The long form in the short one; the Supervisor takes a mapping for something else."""
    before = len(reader.notes.problems)
    read: dict[str, Any] = mapping(node, reader, _LONG, of="a port")
    if "target" not in read and len(reader.notes.problems) == before:
        reader.refuse(node, "a port needs its `target`, the port in the container")
    if len(reader.notes.problems) > before:
        return None
    short = f"{read['target']}/{read.get('protocol', 'tcp')}"
    if "published" in read:
        short = f"{read['published']}:{short}"
    if "host_ip" in read:
        short = (
            f"{read['host_ip']}:{'' if 'published' in read else str(read['target']) + ':'}{short}"
        )
    return short


_protocol = one_of("tcp", "udp", otherwise="the Supervisor publishes no other")
_LONG: Final = {
    "target": whole(1, 65535),
    "published": text,
    "protocol": _protocol,
    "host_ip": text,
}


def _is_free(address: str, protocol: str, host: range, node: Node, reader: Reader) -> bool:
    for other, its_protocol, taken, where in reader.scope.ports:
        meets = max(host.start, taken.start) < min(host.stop, taken.stop)
        if meets and protocol == its_protocol and (address == other or "" in {address, other}):
            reader.refuse(
                node, f"{where} publishes the same host port: one of both would never start"
            )
            return False
    reader.scope.ports.append((address, protocol, host, node.path))
    return True
