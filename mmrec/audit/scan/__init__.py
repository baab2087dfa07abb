"""The audit reads: every click log once, every item table once, and nothing is judged here.

`files.py` (which there are, and their schema); `columns.py`, `numbers.py` and `names.py` (what is
counted of a column by its role); `rows.py`, `split.py`, `features.py`, `reading.py` and `clicks.py`
(click logs); `item_table.py`, `items.py`, `vectors.py` and `images.py` (what is known of items)."""
