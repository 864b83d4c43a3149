"""Desired state: what Cloudly wants of a node. It has a generation; the report says which one was observed."""

from __future__ import annotations

from pydantic import Field

from interfaces.wire import Id, Name, Wire

MAX_WAIT_S = 2_592_000.0
"""30 days: the longest that anything may be waited for."""


class ServiceImage(Wire):
    """One service of a release and the image it must run, by digest."""

    service: Name
    image: str = Field(min_length=1, max_length=500)


class UpdatePolicy(Wire):
    """How patient an update is. Cloudly's to set, per deployment."""

    download_deadline_s: float = Field(default=3600.0, gt=0, le=MAX_WAIT_S)
    apply_deadline_s: float = Field(default=600.0, gt=0, le=MAX_WAIT_S)
    health_soak_s: float = Field(default=60.0, ge=0, le=MAX_WAIT_S)
    """Every service must run this long without a break before the update counts."""
    health_deadline_s: float = Field(default=300.0, gt=0, le=MAX_WAIT_S)
    """If the soak has not been passed by then, the update has failed its health check."""
    max_apply_attempts: int = Field(default=3, ge=1, le=100)


class AppTarget(Wire):
    """The release of the app layer that a node should run, as one deployment."""

    deployment: Id
    """The order to this node; goes into every report about it."""
    release: Id
    """The release's commit, as the Supervisor reports it."""
    version: Name
    images: tuple[ServiceImage, ...] = Field(default=(), max_length=100)
    rollback_of: Id | None = None
    """Set when this target turns back that deployment, which needed a rollback."""
    policy: UpdatePolicy = UpdatePolicy()


class DesiredState(Wire):
    """What should be. `generation` grows by each change; equal generations mean equal contents."""

    generation: int = Field(ge=0, le=2**53)
    app: AppTarget | None = None
