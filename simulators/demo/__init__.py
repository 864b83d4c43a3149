"""The main job, told live: a device enrolls, updates, is killed in mid-update, goes on, and rolls a bad release back.

Everything is a real process on loopback: Cloudly, a simulated Supervisor, `baserunner run`. What the story shows is
what `baserunner journal tail` prints; nothing is staged for the audience.
"""
