"""Putting Cloudly into a balenaOS image or its config.json, and looking at what is there."""
