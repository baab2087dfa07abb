"""The audit reads: files opened leniently, columns scanned once, a sample of what is large.

`layout.py` (which files), `opening.py`, `chunk.py`, `scan.py` (the click logs), `sample.py`,
`images.py`, `texts.py`, `vectors.py`."""
