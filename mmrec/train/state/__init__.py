"""What a run leaves on disk: `store.py` holds its checkpoints.

`checkpoint.py` (one of them), `progress.py` (where the run stands), `log.py` (its events)."""
