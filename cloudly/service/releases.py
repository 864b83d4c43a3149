"""A release in full, for `cloudly release show` and the API."""

from __future__ import annotations

from typing import Any

from cloudly.store.sql import Connection
from cloudly.store.targets import target_release


def described(db: Connection, number: int) -> dict[str, Any]:
    """All that it says, and the file that it was made from. The environment may hold secrets."""
    version, compose, created = db.execute(
        "SELECT version, compose, created_at_ms FROM release WHERE id=?", (number,)
    ).fetchone()
    release = target_release(db, number)
    services = {
        one.name: {
            "image": one.image,
            "environment": one.environment,
            "labels": one.labels,
            "composition": one.composition,
        }
        for one in release.services
    }
    return {
        "release": release.commit,
        "version": version,
        "created_at_ms": created,
        "services": services,
        "volumes": release.volumes,
        "networks": release.networks,
        "compose": compose,
    }
