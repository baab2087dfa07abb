"""The audit reads: every click log once, every item table once, and nothing is judged here.

`files.py` (which there are); `reading.py` (columns, leniently); `rows.py`, `split.py` and
`clicks.py` (click logs); `items.py`, `vectors.py` and `images.py` (what is known of items)."""
