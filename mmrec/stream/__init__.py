"""Any parquet as ready batches: streamed, shuffled, cut for ranks and workers, resumable.

In the order of the data: `stream.py` (the way in), `mmrec.io.sources` (files found and opened),
`manifest.py` (are they the files that were written), `decode.py` (Arrow to numpy), `partition.py`
(which rows a batch holds), `rows.py` and `batches.py` (they are read), `ring.py` and `loader.py`
(from worker processes), `repack.py` with `compact.py` (files that stream well)."""
