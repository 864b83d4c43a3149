"""Rollouts, the pure part: which nodes, in which phases, when, and when to stop.

Rules:
- Nothing here reads a database, a clock, the environment or chance: everything is an argument. The one exception is
  the table of time zones, which `zoneinfo` reads once (`windows`).
- Times are milliseconds since 1970 UTC (`now_ms`); durations are seconds (`soak_s`); shares are basis points
  (`share_bp`).

    selector    which nodes                      membership  in which phase a node is: computed, never stored
    versions    the order of versions            windows     when a node may be disturbed
    phases      a slice of the nodes             evidence    when failures are too many
    plan        what the operator asked for      admission   whether one node may have it now, and why not
    machine     chart and facts; their fold is   engine      what the leading process must write now
    belief      what is believed of a rollout    counting    outcomes in bulk: one fact for many
    counts      what became of the grants        orders      what an operator may order
    dry_run     what a plan would do             why         what a rollout waits for
"""
