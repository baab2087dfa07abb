"""The audit reports: the only place where findings become sentences.

`sentences.py` (a finding in words), `tables.py` (facts as JSON and tables), `plots.py`, then
`report.py`, which writes all three."""
