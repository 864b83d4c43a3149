"""Telling others what happened: signed, at least once, in order as far as possible."""
