"""Diagnostics on demand: Cloudly asks, the journal answers."""
