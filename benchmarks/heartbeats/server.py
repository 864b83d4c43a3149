"""A server of one make: `python -m benchmarks.heartbeats.server MAKE PORT DIRECTORY [URL]`.

null              every request is read, checked and answered, nothing is stored
sqlite, pg        Cloudly
sqlite-normal     Cloudly with synchronous=NORMAL
sqlite-naive      Cloudly, a COMMIT for each decision
pg-one            one statement for each request, each its own transaction: what a server without group commit would do
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

from benchmarks.heartbeats.makes import NullStore, OneStatementStore
from cloudly import serve as serving
from cloudly.app import create_app
from cloudly.http.live import Closing
from cloudly.settings import Settings
from cloudly.store import together
from cloudly.store.sqlite import SqliteDatabase
from cloudly.store.store import Store
from interfaces.world import RealWorld


def main() -> None:
    make, port, directory, *url = sys.argv[1:]
    settings = Settings(data_dir=Path(directory), port=int(port), page=False, log_level="WARNING")
    world = RealWorld()
    store: Any
    if make == "null":
        store = NullStore()
    elif make == "pg-one":
        store = OneStatementStore(url[0])
    else:
        store = Store.open(Path(directory), world, database_url=url[0] if url else None)
    if make == "sqlite-naive":
        together.MOST = 1
    if make == "sqlite-normal":
        cast("SqliteDatabase", store.database)._connection.execute("PRAGMA synchronous=NORMAL")
    app = create_app(store, world, settings, closing=Closing())
    server = serving.Server(serving._config(app, settings, None), Closing())
    serving._run(server)


if __name__ == "__main__":
    main()
