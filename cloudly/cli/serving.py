"""`cloudly serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cloudly.cli.common import DataDir, settings_of


def serve(  # noqa: PLR0913 - one per setting
    *,
    data_dir: DataDir = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [env: CLOUDLY_HOST]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0 takes a free one. [env: CLOUDLY_PORT]")
    ] = None,
    page: Annotated[
        bool | None, typer.Option("--page/--no-page", help="Serve the page. [env: CLOUDLY_PAGE]")
    ] = None,
    insecure_page: Annotated[
        bool | None,
        typer.Option(
            "--insecure-page",
            help="The page has no login yet: serve it to everyone who reaches this host.",
        ),
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(help="How devices reach it, https://host:port. [env: CLOUDLY_PUBLIC_URL]"),
    ] = None,
    tls: Annotated[
        str | None,
        typer.Option(
            metavar="off|files|self",
            help="self: by a CA of its own, for the host of the public URL. [env: CLOUDLY_TLS]",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            help="Certificate and chain, PEM; read again when it changes. [env: CLOUDLY_TLS_CERT]"
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="Its key, PEM. [env: CLOUDLY_TLS_KEY]")
    ] = None,
) -> None:
    """Serve devices and the page until SIGTERM.

    The file `incarnation` in the data directory tells a restored database from the one that was there: leave it out
    of backups, and leave it in place when cloudly.db is restored.
    """
    from cloudly.logs import configure
    from cloudly.serve import serve as run

    settings = settings_of(
        data_dir,
        host=host,
        port=port,
        page=page,
        insecure_page=insecure_page,
        public_url=public_url,
        tls=tls,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    configure(settings.log_level, settings.log_format)
    raise typer.Exit(run(settings))
