"""The audit reads: every click log once, every item table once, and nothing is judged here.

`files.py` (which there are); `sample.py`, `rows.py`, `split.py`, `overlap.py` and `clicks.py`
(click logs); `items.py`, `vectors.py`, `images.py` and `content.py` (what is known of items)."""
