"""The world outside, in small: virtual time, a Supervisor true to its recordings, and weather (seeded faults).

Rules:
- A simulator stands on the production seam (a socket, an ASGI app, an httpx transport, a `World`); nothing is patched.
- Whatever a simulator does by chance comes from a seed that it shows; the same seed does the same again.
- Every fault is counted when it fires, so that a harness can assert that it did.
- This room imports `interfaces` and nothing else of ours.
"""
