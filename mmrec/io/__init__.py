"""How files are read and written; every room may use it.

Read `files.py` first (whole files), then the strict reader of parquet: `sources.py` (files found,
opened, watched) and `parquet.py` (their columns as numpy); `lenient.py` is the reader of who
reports instead of refusing. `pictures.py` is the one way to read a picture. Apart stand
`identity.py` (made from the same, or refused), `plain.py` (settings to and from TOML) and
`hashing.py`."""
