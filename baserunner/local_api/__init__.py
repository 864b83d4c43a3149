"""The local API: what a neighbour app may ask of the agent, over a unix socket in a directory shared with it."""
