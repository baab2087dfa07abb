"""What a trained model rests on, and pictures of its training: `diagnose.py`, `plots.py`."""
