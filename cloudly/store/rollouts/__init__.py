"""Rollouts in the database: the rules of `cloudly.rollouts` on rows.

Rules:
- The facts (`rollout_event`) are the only truth about a rollout; `rollout.state, seq, hash, is_open` are their
  projection, moved in the same transaction (`story`). Who decides, an operator or the process that leads, appends by
  the same function.
- What became of a grant is a row of the node's own (`grants`), written beside other nodes' in the transaction that
  stores the node's journal. The facts count it afterwards, at most a tick later.
- Nothing on the way of a heartbeat counts the fleet: the counters are those of the facts, with what is in flight and
  what came since, both found by an index (`counters`).

    story       facts: append, recall, fencing           grants      one node's order and its outcome
    making      a new rollout                            counters    how many, as of now
    candidates  nodes as a rollout sees them             admitting   a check-in: given its order, or not
    known       what this process knows of the open ones observing   what the leading process sees
    sweeping    who is still to come, slice by slice     turning     a rollback, slice by slice
    lease       which process leads                      listing     for people
    given       who was given the order, for people
"""
