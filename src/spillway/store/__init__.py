"""What is kept: keys and the ledger in SQLite, usage on its way there, keys in a worker's memory. Floor 6.

Read `ports.py` first; `opening.py` makes the real thing, `memory.py` is its twin.
"""
