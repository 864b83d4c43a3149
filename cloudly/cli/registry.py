"""`cloudly registry`: what a registry needs to believe Cloudly, and who may push to it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table, settings_of
from cloudly.cli.people import ByOption, by_now

app = typer.Typer(
    help="The registry that devices pull from: Cloudly is its token server.", no_args_is_help=True
)
publisher = typer.Typer(help="Publishers: who may push images.", no_args_is_help=True)
app.add_typer(publisher, name="publisher")

PublisherName = Annotated[str, typer.Argument(metavar="NAME", help="For example ci.")]

ROUTE = "/auth/v1/token"
REALM = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?"
)
"""No user, no password, no query: it stands in every challenge that the registry sends."""


@app.command()
def config(
    *,
    realm: Annotated[
        str,
        typer.Option(help="Where devices reach this Cloudly, for example https://cloudly.example."),
    ],
    service: Annotated[
        str | None,
        typer.Option(
            help="The registry's host as images name it: registry.example. [env: CLOUDLY_REGISTRY_SERVICE]"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the certificates that the registry shall trust there."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Print the `auth:` part of the registry's config.yml. The registry reads both when it starts."""
    settings = settings_of(data_dir, registry_service=service)
    if settings.registry_service is None:
        raise typer.BadParameter("--service is needed, for example --service registry.example")
    address = realm_of(realm)
    from cloudly.balena import registry_keys
    from cloudly.durable import write_durably
    from interfaces.world import RealWorld, now_ms

    world = RealWorld()
    keys = registry_keys.open_keys(settings.data_dir, world)
    bundle = out or settings.data_dir / registry_keys.FOLDER / registry_keys.BUNDLE
    write_durably(bundle, keys.bundle(now_ms(world)).encode(), mode=0o644)
    for line in (
        f"# cloudly serve needs CLOUDLY_REGISTRY_SERVICE={settings.registry_service}",
        "auth:",
        "  token:",
        f"    realm: {json.dumps(address)}",
        f"    service: {json.dumps(settings.registry_service)}",
        f"    issuer: {json.dumps(settings.registry_issuer)}",
        f"    rootcertbundle: {json.dumps(str(bundle.absolute()))}",
        f"    signingalgorithms: [{registry_keys.ALGORITHM}] # 3.x; 2.8 takes only the certificate's own",
    ):
        typer.echo(line)


def realm_of(text: str) -> str:
    """The full address of the token route. Raises BadParameter."""
    from cloudly.settings import is_loopback

    found = REALM.fullmatch(text)
    if found is None:
        raise typer.BadParameter(
            f"--realm {text!r} is no address; for example https://cloudly.example"
        )
    if found["scheme"] == "http" and not is_loopback(found["host"].strip("[]")):
        typer.echo("cloudly: this realm is not https: device keys would travel in clear", err=True)
    base = text.rstrip("/")
    return base if base.endswith(ROUTE) else base + ROUTE


@app.command("rotate-key")
def rotate_key(
    *,
    at_once: Annotated[
        bool,
        typer.Option(
            "--at-once",
            help="A key has leaked: trust nothing of before. No pull succeeds until the registry has the new bundle.",
        ),
    ] = False,
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """Sign with the next key, which the registry knows already, and prepare the one after it."""
    from cloudly import keys
    from cloudly.balena.registry_keys import turn
    from interfaces.world import RealWorld

    settings, world, who = settings_of(data_dir), RealWorld(), by_now(by)
    with keys.replacing(settings, world, "registry", at_once=at_once, by=who):
        turn(settings.data_dir, world, at_once=at_once)
    typer.echo(
        "all keys are new: give the registry the new bundle (`cloudly registry config --out`) and restart it now"
        if at_once
        else "the next key signs now; before you do this again, give the registry the new bundle"
        " (`cloudly registry config --out`) and restart it"
    )


@publisher.command()
def create(
    name: PublisherName,
    *,
    prefix: Annotated[
        str, typer.Option(help="Only repositories below it: team/app. Without it, all.")
    ] = "",
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make a publisher. Its password is shown this once; only its hash is kept."""
    from cloudly.store.publishers import Publisher
    from cloudly.store.publishers import create as create_publisher
    from cloudly.tokens import new_publisher_password
    from interfaces.world import RealWorld

    who, password = by_now(by), new_publisher_password(RealWorld())
    new = Publisher(name, prefix, who.at_ms)
    with opened(data_dir) as store:
        store.write_now(lambda db: create_publisher(db, new, password, by=who))
    if as_json:
        print_json({**asdict(new), "password": password})
    else:
        typer.echo(password)


@publisher.command("list")
def list_(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show publishers, without their passwords."""
    from cloudly.store.publishers import listed
    from cloudly.views import ago
    from interfaces.world import RealWorld, now_ms

    with opened(data_dir) as store:
        known = store.read_now(listed)
    if as_json:
        print_json([asdict(one) for one in known])
        return
    now = now_ms(RealWorld())
    print_table(
        ("name", "may push", "made"),
        [
            (
                one.name,
                f"{one.prefix}/..." if one.prefix else "everywhere",
                ago(one.created_at_ms, now),
            )
            for one in known
        ],
        empty="No publishers yet. `cloudly registry publisher create` makes one.",
    )


@publisher.command()
def revoke(name: PublisherName, *, by: ByOption = None, data_dir: DataDir = None) -> None:
    """It gets no more tokens; one that it has ends within minutes."""
    from cloudly.store.publishers import revoke as revoke_publisher

    who = by_now(by)
    with opened(data_dir) as store:
        store.write_now(lambda db: revoke_publisher(db, name, by=who))
    typer.echo(f"publisher {name} is revoked")
