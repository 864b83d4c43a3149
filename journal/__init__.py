"""What happened on this device: append, recall, chart, ship, trim, verify, export, draw.

A fact is legal, then written, then believed, in that order; waking up is reading. This room imports nothing of ours,
and importing it costs sqlite3 and nothing else: `sqlite_utils` is loaded to create or migrate a journal and to load an
export, `transitions` to draw a chart.
"""
