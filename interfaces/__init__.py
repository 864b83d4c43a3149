"""What crosses a border: the models of every conversation, and the port through which chance and time come in.

Rules:
- Every model is frozen and ignores fields it does not know, so that old agents and new servers meet.
- A validation error never echoes its input: the input may hold a secret.
- Times on the wire are integers of milliseconds since 1970 UTC (`..._at_ms`); durations are seconds (`..._s`).
- This room imports nothing of ours.
"""
