"""`cloudly ca`: the CA that Cloudly makes for its devices."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudly.cli.common import AsJson, DataDir, print_json, print_table, settings_of
from cloudly.cli.people import ByOption, by_now

if TYPE_CHECKING:
    from cloudly.tls.kept import Kept

app = typer.Typer(
    help="The CA of Cloudly's own, for CLOUDLY_TLS=self: devices trust its certificate.",
    no_args_is_help=True,
)
PublicUrl = Annotated[
    str | None,
    typer.Option(help="How devices reach Cloudly. [env: CLOUDLY_PUBLIC_URL]"),
]


@app.command()
def init(  # noqa: PLR0913 - options of a command
    *,
    public_url: PublicUrl = None,
    permit: Annotated[
        list[str] | None,
        typer.Option(
            help="A further host that it may speak for: a name (and all below it) or an address. Repeatable."
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Even if there is one; every device needs the new one."),
    ] = False,
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make the CA. `cloudly serve` with CLOUDLY_TLS=self does it by itself, for the public URL's host alone."""
    from cloudly import keys
    from cloudly.tls.authority import is_host
    from interfaces.world import RealWorld

    kept, host = _kept_and_host(data_dir, public_url)
    further = [name.lower() for name in permit or []]
    for name in further:
        if not is_host(name):
            raise typer.BadParameter(
                f"--permit {name!r} is no host; for example --permit example.com"
            )
    world = RealWorld()
    hosts = list(dict.fromkeys([host, *further]))
    if not replace:  # whether other servers have one already is asked when this one starts
        kept.make_ca(hosts, world)
    else:
        settings = settings_of(data_dir, public_url=public_url)
        with keys.replacing(settings, world, "ca", at_once=True, by=by_now(by)):
            kept.make_ca(hosts, world, replace=True)
    kept.renew_server(host, world)
    _print(kept, as_json=as_json)


@app.command()
def show(
    *,
    pem: Annotated[
        bool, typer.Option("--pem", help="The CA's certificate and nothing else.")
    ] = False,
    one_line: Annotated[
        bool,
        typer.Option(
            "--base64", help="The same in one line, as balenaRootCA and BASEOS_CLOUDLY_CA have it."
        ),
    ] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show the CA and the server certificate; never a key."""
    kept = _kept(data_dir)
    _must_be(kept)
    text = kept.ca_file.read_bytes()
    if pem:
        typer.echo(text.decode("ascii"), nl=False)
    elif one_line:
        typer.echo(base64.b64encode(text).decode())
    else:
        _print(kept, as_json=as_json)


@app.command()
def renew(
    *,
    ca: Annotated[
        bool,
        typer.Option(
            "--ca",
            help="The CA's own certificate, with the key that it has. Devices with the older go on.",
        ),
    ] = False,
    public_url: PublicUrl = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Renew the server certificate now. A running server takes it within a minute, and renews by itself anyway."""
    from interfaces.world import RealWorld

    kept, host = _kept_and_host(data_dir, public_url)
    _must_be(kept)
    world = RealWorld()
    if ca:
        kept.renew_ca(world)
    kept.renew_server(host, world)
    _print(kept, as_json=as_json)


def _kept(data_dir: Any) -> Kept:
    from cloudly.tls.kept import Kept

    return Kept.of(settings_of(data_dir).data_dir)


def _kept_and_host(data_dir: Any, public_url: str | None) -> tuple[Kept, str]:
    from cloudly.problems import BadSettings
    from cloudly.tls.kept import Kept
    from cloudly.tls.serving import host_of

    settings = settings_of(data_dir, public_url=public_url)
    host = host_of(settings.public_url)
    if host is None:
        raise BadSettings(
            "CLOUDLY_PUBLIC_URL is not set: the certificate is made for its host, for example"
            " --public-url https://cloudly.example:8443"
        )
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Kept.of(settings.data_dir), host


def _must_be(kept: Kept) -> None:
    from cloudly.problems import BadOrder

    if kept.ca_certificate() is None:
        raise BadOrder(f"there is no CA in {kept.directory}: `cloudly ca init` makes one")


def _print(kept: Kept, *, as_json: bool) -> None:
    from cloudly.tls import authority

    ca, server = kept.ca_certificate(), kept.server_certificate()
    assert ca is not None  # noqa: S101 - it was just made or looked for
    shown: dict[str, Any] = {
        "ca_file": str(kept.ca_file),
        "ca_until": f"{ca.not_valid_after_utc:%Y-%m-%d}",
        "ca_sha256": authority.fingerprint_of(ca),
        "speaks_for": authority.permitted(ca),
        "server_for": [] if server is None else authority.hosts_of(server),
        "server_until": None if server is None else f"{server.not_valid_after_utc:%Y-%m-%d}",
        "server_sha256": None if server is None else authority.fingerprint_of(server),
    }
    if as_json:
        print_json(shown)
        return
    rows = [
        (name.replace("_", " "), " ".join(value) if isinstance(value, list) else value)
        for name, value in shown.items()
    ]
    print_table(("", ""), rows, empty="")
