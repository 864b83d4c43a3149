"""`cloudly image`: a balenaOS image, or its config.json, for this Cloudly."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cloudly.cli import image_options as options
from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table, settings_of
from cloudly.cli.people import by_now
from cloudly.cli.token import duration_s

if TYPE_CHECKING:
    from cloudly.image.config_json import Config, Plan
    from cloudly.image.home import Backend, Fresh, Token
    from cloudly.image.places import Place
    from cloudly.settings import Settings
    from cloudly.store.store import Store

app = typer.Typer(
    help="Images: a balenaOS image, or its config.json, for this Cloudly.", no_args_is_help=True
)


@app.command()
def configure(  # noqa: PLR0913 - one per key of the file
    target: options.Target,
    *,
    join_token_file: options.TokenFile = None,
    new_token: options.NewToken = False,
    token_name: options.TokenName = "",
    token_uses: options.TokenUses = 1,
    token_expires: options.Expires = "7d",  # noqa: S107 - a duration
    fleet: options.FleetName = None,
    device_type: options.DeviceType = None,
    public_url: options.PublicUrl = None,
    root_ca: options.RootCa = None,
    logs_endpoint: options.LogsEndpoint = None,
    registry: options.Registry = None,
    poll: options.Poll = "15m",
    listen_port: options.ListenPort = 48484,
    name: options.DeviceName = None,
    hostname: options.Hostname = None,
    persistent_logging: options.PersistentLogging = None,
    development_mode: options.DevelopmentMode = None,
    partition: options.PartitionNumber = None,
    replace: options.Replace = False,
    keep_uuid: options.KeepUuid = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Write into it how to reach Cloudly and how to enroll; read it back and check.

    Without a data directory (on another machine) give --public-url, --join-token-file, and --root-ca if there is one.
    """
    from cloudly.image import configuring, home
    from cloudly.image.config_json import Wanted
    from cloudly.image.places import place_of
    from interfaces.world import RealWorld

    if new_token == (join_token_file is not None):
        raise typer.BadParameter("give either --join-token-file FILE (or -) or --new-token")
    if fleet is not None and not new_token:
        raise typer.BadParameter("--fleet is for --new-token: a token that there is has its fleet")
    options.check_forms(device_type=device_type, hostname=hostname, name=name, registry=registry)
    fresh = home.Fresh(token_name, token_uses, duration_s(token_expires), fleet or "default")
    logs, poll_ms = options.address_of(logs_endpoint), options.poll_ms(poll)
    with _cloudly(data_dir, public_url) as (settings, store):
        at_home = store is not None
        to = home.backend(settings, RealWorld(), at_home=at_home, root_ca=root_ca, logs_url=logs)
        home.check_logs(to)
        place = place_of(target, partition=partition)
        plan, token = configuring.configure(
            place,
            Wanted(
                url=to.url,
                logs_url=to.logs_url,
                join_token="",
                root_ca=to.root_ca,
                device_type=device_type,
                registry=registry or settings.registry_service,
                listen_port=listen_port,
                poll_ms=poll_ms,
                device_name=name,
                hostname=hostname,
                persistent_logging=persistent_logging,
                development_mode=development_mode,
            ),
            take_token=lambda: _token(store, join_token_file, fresh),
            give_up=lambda token: _give_up(store, token),
            replace=replace,
            keep_uuid=keep_uuid,
        )
    _print_plan(place, plan, token, to, as_json=as_json)


@app.command()
def show(
    target: options.Target, *, partition: options.PartitionNumber = None, as_json: AsJson = False
) -> None:
    """Show what is there, secrets hidden."""
    from cloudly.image.masking import masked
    from cloudly.image.places import place_of

    place = place_of(target, partition=partition)
    shown = masked(_read(place))
    if as_json:
        print_json({"where": place.said, "device_type": place.device_type(), "config": shown})
        return
    typer.echo(place.said)
    rows = [(key, _in_words(value)) for key, value in shown.items()]
    print_table(("key", ""), rows, empty="It is an empty object.")


@app.command()
def check(  # noqa: PLR0913 - the options of both sides
    target: options.Target,
    *,
    online: options.Online = False,
    partition: options.PartitionNumber = None,
    public_url: options.PublicUrl = None,
    root_ca: options.RootCa = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Check what is there against this Cloudly. Exit code 1 if something is bad."""
    from cloudly.image import home
    from cloudly.image.check import Expected, examine
    from cloudly.image.masking import certificate_in
    from cloudly.image.places import place_of
    from interfaces.world import RealWorld

    world = RealWorld()
    with _cloudly(data_dir, public_url) as (settings, store):
        to = home.backend(settings, world, at_home=store is not None, root_ca=root_ca)
        place = place_of(target, partition=partition)
        config = _read(place)
        expected = Expected(
            url=to.url,
            root_ca=to.certificate,
            token_trouble=None
            if store is None
            else lambda token: home.trouble(store, token, world),
            device_type=place.device_type(),
            now=world.now(),
        )
        found = examine(config, expected)
    if online:
        from cloudly.image.online import reach

        found += reach(to.url, certificate_in(config.get("balenaRootCA")))
    if as_json:
        print_json({"where": place.said, "findings": [asdict(one) for one in found]})
    else:
        typer.echo(place.said)
        rows = [(one.verdict, one.what, one.seen, one.todo) for one in found]
        print_table(("verdict", "key", "seen", "what to do"), rows, empty="")
    raise typer.Exit(1 if any(one.verdict == "bad" for one in found) else 0)


@contextmanager
def _cloudly(
    data_dir: Path | None, public_url: str | None
) -> Iterator[tuple[Settings, Store | None]]:
    """The settings, and the store where its data directory is known."""
    if data_dir is None and not os.environ.get("CLOUDLY_DATA_DIR"):
        yield settings_of(Path(os.devnull), public_url=public_url), None
        return
    with opened(data_dir) as store:
        yield settings_of(data_dir, public_url=public_url), store


def _read(place: Place) -> Config:
    from cloudly.image import configuring
    from cloudly.problems import BadOrder

    found = configuring.read(place)
    if found is None:
        raise BadOrder(f"{place.said}: there is no config.json")
    return found


def _token(store: Store | None, file: Path | None, fresh: Fresh) -> Token:
    from cloudly.image import home
    from cloudly.problems import BadOrder
    from interfaces.world import RealWorld

    if file is not None:
        text = home.read_token(file)
        return home.Token(text) if store is None else home.known_token(store, text, RealWorld())
    if store is None:
        raise BadOrder(
            "a token can be made where Cloudly's data directory is (--data-dir); here, give one:"
            " --join-token-file"
        )
    return home.make_token(store, RealWorld(), fresh, by_now(None))


def _give_up(store: Store | None, token: Token) -> None:
    """A token that was made for what could not be written is nobody's."""
    from cloudly.store import join_tokens

    number, who = token.id, by_now(None)
    if store is not None and token.is_new and number is not None:
        store.write_now(lambda db: join_tokens.revoke(db, number, who.at_ms, by=who))


def _print_plan(place: Place, plan: Plan, token: Token, to: Backend, *, as_json: bool) -> None:
    from cloudly.image.masking import fingerprint, masked

    shown = masked(plan.after)
    values = {key: shown[key] for key in plan.written}
    notes = list(_notes(place, plan, to))
    if as_json:
        which = {"id": token.id, "fingerprint": fingerprint(token.text), "new": token.is_new}
        print_json(
            {
                "where": place.said,
                "written": values,
                "removed": list(plan.removed),
                "join_token": which,
                "notes": notes,
            }
        )
        return
    typer.echo(place.said)
    rows = [(key, _in_words(value)) for key, value in values.items()]
    rows += [(key, "(removed)") for key in plan.removed]
    print_table(("key", "written"), rows, empty="It was all there already.")
    for note in notes:
        typer.echo(f"note: {note}")


def _notes(place: Place, plan: Plan, to: Backend) -> Iterator[str]:
    if plan.after.get("uuid"):
        yield "it has a uuid: flash one device with it, no second"
    if plan.after.get("balenaRootCA") and to.root_ca is None:
        yield "it has a balenaRootCA that is not Cloudly's; it stays"
    if to.url.startswith("http://"):
        yield "devices reach Cloudly without TLS: whoever is on the way reads the join token"
    if place.is_open_to_others:
        yield "others on this machine can read the file, and it holds a join token: chmod 600"


def _in_words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
