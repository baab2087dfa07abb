"""The audit judges: each check measures facts in what was scanned, and finds what is wrong in them.

`statistics.py`, then `shape.py`, `leaks.py`, `categories.py`, `future.py`, `shift.py`, `groups.py`,
`content.py` with `probe.py`: a dataclass of facts, `measure_…` and `judge_…` in each. Nothing is
read here, and nothing is put in words."""
