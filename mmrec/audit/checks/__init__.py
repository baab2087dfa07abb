"""The audit judges: each check turns what was scanned into findings.

`context.py` (what they share), `statistics.py`, then `shape.py`, `leaks.py`, `levels.py`,
`future.py`, `shift.py`, `content.py` with `probe.py`."""
