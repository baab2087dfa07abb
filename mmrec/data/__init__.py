"""The layout of a data set on disk, checked and read; `docs/concepts/data_format.md` describes it.

Raw logs become that layout by `prepare/`. In the order of the data: `clicks.py` (the way in: files
found), `checks.py` (click logs against their schema), `batches.py` (columns to a batch), `items.py`
(the item table), `counts.py` (what train rows show), `artifacts.py` (what a fusion leaves for other
programs); `microlens.py` holds the schema of MicroLens."""
