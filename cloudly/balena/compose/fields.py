"""The fields of a service: what is passed on and in which form, what is refused, what is left out with a warning.

Rules:
- What the Supervisor takes goes into `composition` under its compose name, in the one form that it reads rightly.
- What it would drop silently, or take for something else, is refused with the reason; where nothing is lost by dropping
  it, it is left out with a warning.
- `x-…` is nobody's.

Source: the Supervisor 19.0.5, compose/sanitise.ts (what it keeps), compose/service.ts and compose/utils.ts (how it
reads it); docs.balena.io/reference/supervisor/docker-compose; the compose specification for the names.
"""

from __future__ import annotations

from typing import Any, Final

from cloudly.balena.compose.document import Mapping, Node, Scalar, Sequence
from cloudly.balena.compose.mounts import volumes
from cloudly.balena.compose.networking import network_mode, networks
from cloudly.balena.compose.notes import quoted
from cloudly.balena.compose.ports import ports
from cloudly.balena.compose.values import (
    Reader,
    Reading,
    command,
    decimal,
    duration,
    flag,
    kind_of,
    mapping,
    memory,
    one_of,
    pairs,
    text,
    text_map,
    text_or_texts,
    texts,
    whole,
)


def _depends_on(node: Node, reader: Reader) -> list[str] | None:
    """Always a list: a mapping would stop every apply."""
    if isinstance(node, Mapping):
        for item in node.items.values():
            mapping(item, reader, {"condition": _condition}, of="a dependency")
        named: list[str] | None = list(node.items)
    else:
        named = texts(node, reader)
    for name in named or []:
        if name not in reader.scope.services:
            reader.refuse(node, f"there is no service {quoted(name)} in this file")
    return named


_condition = one_of(
    "service_started",
    otherwise="the Supervisor waits until a service has started, and for nothing more",
)


def _devices(node: Node, reader: Reader) -> list[str] | None:
    found = texts(node, reader)
    for one in found or []:
        parts = one.split(":")
        if (
            len(parts) > 3
            or not parts[0].startswith("/")
            or (len(parts) > 1 and not parts[1].startswith("/"))
        ):
            reader.refuse(
                node, f"{quoted(one)} is no device: write /dev/on-host:/dev/in-container:rwm"
            )
        elif len(parts) == 3 and not set(parts[2]) <= set("rwm"):
            reader.refuse(node, f"{quoted(one)}: what may be done with a device is of r, w, m")
    return found


def _extra_hosts(node: Node, reader: Reader) -> list[str] | None:
    """`host:address` each."""
    if isinstance(node, Mapping):
        return [f"{name}:{held}" for name, (held, _) in pairs(node, reader, what="a host").items()]
    found = texts(node, reader)
    for one in found or []:
        if not all(one.replace("=", ":", 1).partition(":")):
            reader.refuse(node, f"{quoted(one)} is not host:address")
    return None if found is None else [one.replace("=", ":", 1) for one in found]


def _healthcheck(node: Node, reader: Reader) -> dict[str, Any] | None:
    """Its keys as the Supervisor reads them: `startPeriod`, where compose says start_period."""
    before = len(reader.notes.problems)
    read = mapping(node, reader, _HEALTHCHECK, of="a healthcheck")
    if len(reader.notes.problems) > before:
        return None
    if read.get("disable"):
        return {"disable": True}
    if "test" not in read:
        reader.refuse(
            node, "needs a `test`: without it the Supervisor takes away the one of the image"
        )
        return None
    renamed = {"start_period": "startPeriod"}
    return {renamed.get(name, name): held for name, held in read.items() if name != "disable"}


def _test(node: Node, reader: Reader) -> str | list[str] | None:
    if isinstance(node, Scalar):
        return text(node, reader)
    found = texts(node, reader)
    if found is not None and (
        found[:1] not in (["NONE"], ["CMD"], ["CMD-SHELL"]) or found == ["CMD"]
    ):
        reader.refuse(
            node, "a list begins with NONE, CMD or CMD-SHELL, and CMD with a command behind it"
        )
        return None
    return found


_probe_time = duration(1, "an engine takes no shorter one")
_HEALTHCHECK: Final[dict[str, Reading]] = {
    "test": _test,
    "interval": _probe_time,
    "timeout": _probe_time,
    "start_period": _probe_time,
    "retries": whole(1, 1000),
    "disable": flag,
}


def _security_opt(node: Node, reader: Reader) -> list[str] | None:
    found = texts(node, reader)
    for one in found or []:
        if "label=" in one:
            reader.refuse(
                node, f"the Supervisor drops {quoted(one)}: there is no SELinux on the device"
            )
    return found


def _sysctls(node: Node, reader: Reader) -> dict[str, str]:
    found: dict[str, str] = text_map("a sysctl")(node, reader)
    return found


def _ulimits(node: Node, reader: Reader) -> dict[str, Any] | None:
    if not isinstance(node, Mapping):
        reader.refuse(node, f"this must be a mapping, and is {kind_of(node)}")
        return None
    found = {name: _ulimit(item, reader) for name, item in node.items.items()}
    return {name: held for name, held in found.items() if held is not None}


def _ulimit(node: Node, reader: Reader) -> Any:
    limit = whole(-1)
    if not isinstance(node, Mapping):
        return limit(node, reader)
    read = mapping(node, reader, {"soft": limit, "hard": limit}, of="a limit")
    if set(node.items) != {"soft", "hard"}:
        reader.refuse(node, "needs both soft and hard")
    return read


def _own(node: Node, reader: Reader) -> list[str] | str | None:
    return texts(node, reader) if isinstance(node, Sequence) else text(node, reader)


_restart = one_of(
    "no", "always", "on-failure", "unless-stopped",
    otherwise="the Supervisor takes any other policy, a number of retries too, for always",
)  # fmt: skip
_unresolved = "the Supervisor resolves no service or container here"
_ipc = one_of("none", "private", "shareable", "host", otherwise=_unresolved)
_pid = one_of("host", otherwise=_unresolved)
_grace = duration(
    1000, "the Supervisor takes less than a second for 10 s, and makes the container again for ever"
)

# fmt: off
PASSED: Final[dict[str, Reading]] = {
    "cap_add":           texts,
    "cap_drop":          texts,
    "cgroup_parent":     text,
    "command":           command,
    "cpu_quota":         whole(),
    "cpu_shares":        whole(1),
    "cpus":              decimal,
    "cpuset":            text,
    "depends_on":        _depends_on,
    "devices":           _devices,
    "dns":               text_or_texts,
    "dns_opt":           texts,
    "dns_search":        text_or_texts,
    "domainname":        text,
    "entrypoint":        command,
    "extra_hosts":       _extra_hosts,
    "group_add":         texts,
    "healthcheck":       _healthcheck,
    "hostname":          text,
    "init":              flag,
    "ipc":               _ipc,
    "mac_address":       text,
    "mem_limit":         memory,
    "mem_reservation":   memory,
    "network_mode":      network_mode,
    "networks":          networks,
    "oom_kill_disable":  flag,
    "oom_score_adj":     whole(-1000, 1000),
    "pid":               _pid,
    "pids_limit":        whole(1),
    "ports":             ports,
    "privileged":        flag,
    "read_only":         flag,
    "restart":           _restart,
    "security_opt":      _security_opt,
    "shm_size":          memory,
    "stop_grace_period": _grace,
    "stop_signal":       text,
    "sysctls":           _sysctls,
    "tty":               flag,
    "ulimits":           _ulimits,
    "user":              text,
    "userns_mode":       one_of("host", otherwise="an engine knows no other"),
    "volumes":           volumes,
    "working_dir":       text,
}
"""Into `composition`. `tmpfs` is read too, and goes into its `volumes`."""

HERE: Final = ("image", "environment", "labels", "tmpfs")
"""Read on their own."""

REFUSED: Final = {
    "build":             "Cloudly builds nothing: build it, push it, and name the image by digest",
    "blkio_config":      "the Supervisor drops it",
    "cgroup":            "the Supervisor drops it",
    "configs":           "the Supervisor knows no configs: put the file into the image or a named volume",
    "container_name":    "the Supervisor names containers itself: others reach it by its service name or an alias",
    "cpu_count":         "the Supervisor drops it: use cpus",
    "cpu_percent":       "the Supervisor drops it: use cpus",
    "cpu_period":        "the Supervisor drops it: use cpus",
    "cpu_rt_period":     "the Supervisor drops it",
    "cpu_rt_runtime":    "the Supervisor drops it",
    "credential_spec":   "the Supervisor drops it",
    "deploy":            "the Supervisor runs each service once and knows no deploy: use mem_limit, cpus, restart",
    "device_cgroup_rules": "the Supervisor drops it: use devices",
    "develop":           "this is for a desk, not for a device",
    "env_file":          "a release holds no files: write the variables under `environment`",
    "extends":           "nothing is put together here: write the service out, or use a YAML anchor",
    "external_links":    "the Supervisor drops it: use networks",
    "gpus":              "the Supervisor drops it: use the label io.balena.features.gpu",
    "isolation":         "the Supervisor drops it",
    "label_file":        "a release holds no files: write the labels under `labels`",
    "links":             "the Supervisor drops it: services of one network reach each other by name",
    "logging":           "the Supervisor drops it: it takes the log of every container itself",
    "mem_swappiness":    "the Supervisor drops it",
    "memswap_limit":     "the Supervisor drops it",
    "models":            "the Supervisor knows no models",
    "post_start":        "the Supervisor drops it",
    "pre_stop":          "the Supervisor drops it: what must be done at SIGTERM is the service's own",
    "profiles":          "the Supervisor runs every service of a release",
    "provider":          "the Supervisor runs containers only",
    "runtime":           "the Supervisor drops it",
    "scale":             "the Supervisor runs each service once",
    "secrets":           "the Supervisor knows no secrets, and a release is no place for one",
    "storage_opt":       "the Supervisor keeps it from the engine, and makes the container again for ever",
    "use_api_socket":    "the Supervisor drops it: use the label io.balena.features.balena-socket",
    "uts":               "the Supervisor drops it",
    "volume_driver":     "the Supervisor drops it",
    "volumes_from":      "the Supervisor drops it: name the same volume in both services",
}

LEFT_OUT: Final = {
    "annotations":       "the Supervisor drops it",
    "attach":            "the Supervisor drops it: it takes every log",
    "expose":            "the Supervisor drops it: services of one network reach every port of each other",
    "platform":          "the Supervisor drops it: the digest says which image it is",
    "pull_policy":       "the Supervisor drops it: an image is pulled when it is not there",
    "stdin_open":        "the Supervisor drops it: nobody types into a container on a device",
}
# fmt: on
