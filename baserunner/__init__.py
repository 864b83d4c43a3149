"""The device agent and its CLI: enrolls, heartbeats, drives updates, and survives a power cut at any instant."""

__version__ = "0.1.0"
