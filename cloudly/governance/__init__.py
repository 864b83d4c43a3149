"""What may run where, as rules: approvals, pins, floors, bans. Pure; `cloudly.store.governance` asks the database.

people      who ordered it, as one name per person
approvals   when a release is published in a channel, and what is missing
pins        what holds a node, and until when
floors      which release comes first
standing    all of it, for one node and one release
"""
