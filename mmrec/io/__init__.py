"""How files are read and written; every room may use it.

Read `files.py` first (whole files), then `parquet.py` (the strict reader)."""
