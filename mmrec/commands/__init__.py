"""Commands that have no room of their own: `train` and `export`; the others are `python -m ROOM`.

`mmrec/__main__.py` lists all of them.
"""
