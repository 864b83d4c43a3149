"""What may run where, in the database: channels, approvals, pins, bans, and what they say of one node and one release.

The rules are `cloudly.governance`; here is what they are asked about. `standing` is the one question of every order.
"""
