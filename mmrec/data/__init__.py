"""The layout of a data set on disk, checked and read; `docs/data_format.md` describes it.

In the order of the data: `microlens.py` (the way in: files found), `schema.py` (click logs),
`items.py` (the item table), `counts.py` (what train rows show), `artifacts.py` (what a fusion
leaves for other programs)."""
