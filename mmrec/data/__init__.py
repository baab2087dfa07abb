"""Click logs and items on disk: the layout and its checks, streams of batches, data sets made."""
