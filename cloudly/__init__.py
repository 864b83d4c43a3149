"""The control plane: enrollment, heartbeats, journals, desired state, the balena device contract, and a page.

Rules:
- Decisions are pure functions over rows; `store/` holds every SQL sentence; `http/` only translates.
- An answer goes out after the COMMIT that makes it true, never before.
- Only hashes of credentials are at rest; no log line, error or page holds one.
- Nothing here starts a thread: the app runs under virtual time together with the agents it serves.
"""
