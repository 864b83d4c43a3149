"""A fleet that heartbeats: a table of a million nodes, servers of several makes, and a client that costs little."""
