"""The balena device contract: what an unmodified Supervisor asks of its only backend, which is Cloudly."""
