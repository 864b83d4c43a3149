"""The options of `cloudly image`, and what is checked of them before anything is opened."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from cloudly.cli.token import duration_s

Target = Annotated[
    Path,
    typer.Argument(
        metavar="TARGET",
        help="A config.json, the folder of a mounted boot partition, an image (unpacked), or a disk.",
    ),
]
PartitionNumber = Annotated[
    int | None, typer.Option("--partition", help="Which partition, where the label does not tell.")
]
PublicUrl = Annotated[
    str | None, typer.Option(help="How devices reach Cloudly. [env: CLOUDLY_PUBLIC_URL]")
]
RootCa = Annotated[
    Path | None,
    typer.Option(help="A CA that devices must trust; with CLOUDLY_TLS=self it is Cloudly's own."),
]
TokenFile = Annotated[
    Path | None, typer.Option(help="Where the join token is; - is standard input.")
]
NewToken = Annotated[bool, typer.Option("--new-token", help="Make a join token for it.")]
TokenName = Annotated[str, typer.Option(help="Of the new token; people read it.")]
TokenUses = Annotated[
    int, typer.Option(min=1, max=1_000_000, help="How many devices are flashed with it.")
]
Expires = Annotated[
    str, typer.Option(help="After how long the new token admits nobody: 24h, 7d, never.")
]
FleetName = Annotated[
    str | None, typer.Option(help="Into which the new token's nodes come; else the first.")
]
DeviceType = Annotated[
    str | None, typer.Option(help="As balena calls it; default: what the image says.")
]
LogsEndpoint = Annotated[str | None, typer.Option(help="Where logs go, https; default: Cloudly.")]
Registry = Annotated[
    str | None,
    typer.Option(help="registryEndpoint; else the registry that Cloudly is the token server of."),
]
Poll = Annotated[str, typer.Option(help="How often the Supervisor asks by itself: 1m to 24h.")]
ListenPort = Annotated[
    int, typer.Option(min=1024, max=65535, help="Of the Supervisor's local API.")
]
DeviceName = Annotated[str | None, typer.Option(help="The device's first name.")]
Hostname = Annotated[str | None, typer.Option(help="The device's host name.")]
PersistentLogging = Annotated[
    bool | None, typer.Option(help="Keep the host's journal over reboots.")
]
DevelopmentMode = Annotated[
    bool | None, typer.Option(help="Lets anybody in who reaches it. For a desk.")
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Even if it is of another backend or registered.")
]
KeepUuid = Annotated[
    bool, typer.Option("--keep-uuid", help="With --replace: it stays the same node.")
]
Online = Annotated[
    bool, typer.Option("--online", help="Also ask Cloudly, trusting what the device would.")
]

FORMS = {
    "device_type": (r"[a-z0-9][a-z0-9-]{0,63}", "raspberrypi4-64"),
    "hostname": (r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", "kitchen-7"),
    "name": (r"[\w.\-][\w.\- ]{0,59}", "kitchen 7"),
    "registry": (r"[a-z0-9.-]{1,253}(:[0-9]{1,5})?", "registry.example:5000"),
}


def check_forms(**given: str | None) -> None:
    """Raises BadParameter."""
    for option, value in given.items():
        form, example = FORMS[option]
        if value is not None and re.fullmatch(form, value, flags=re.ASCII) is None:
            said = f"--{option.replace('_', '-')}"
            raise typer.BadParameter(
                f"{said} {value!r} is malformed; for example {said} {example!r}"
            )


def poll_ms(text: str) -> int:
    """Raises BadParameter."""
    from cloudly.image.config_json import POLL_BOUNDS_MS

    found = duration_s(text) * 1000
    low, high = POLL_BOUNDS_MS
    if not low <= found <= high:
        raise typer.BadParameter(f"--poll {text!r} is not between 1m and 24h")
    return found


def address_of(url: str | None) -> str | None:
    """Raises BadParameter."""
    from pydantic import TypeAdapter, ValidationError

    from cloudly.settings import Address

    if url is None:
        return None
    try:
        found: str = TypeAdapter(Address).validate_python(url)
    except ValidationError:
        raise typer.BadParameter(
            "--logs-endpoint must be https://host or https://host:port, without a path"
        ) from None
    return found
