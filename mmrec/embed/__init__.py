"""Frozen encoders over raw pictures, titles and other values: resumable, to feature parquet.

Read `extract.py` first, the whole of it in one loop. Then along the data: `items.py` and
`captions.py` (what there is), `pool.py` and `preprocess.py` (pictures to pixels, in worker
processes), `encoder.py` and `forward.py` (pixels to vectors), `shard.py` and `output.py` (vectors
to files), `report.py` and `sheet.py` (what came of it). `clip.py` is the encoder that is there,
`tiny.py` makes a small one. Importing this loads neither open_clip nor torchvision.
"""

from mmrec.embed.captions import Captions
from mmrec.embed.clip import OpenClipEncoder
from mmrec.embed.encoder import (
    Encoder,
    PictureEncoder,
    Preprocessing,
    ValueEncoder,
    hash_weights,
    towers,
)
from mmrec.embed.extract import embed_items
from mmrec.embed.report import EmbedReport
from mmrec.embed.tiny import TinyClip, save_model, tiny_clip, train_tiny_clip

__all__ = [
    "Captions",
    "EmbedReport",
    "Encoder",
    "OpenClipEncoder",
    "PictureEncoder",
    "Preprocessing",
    "TinyClip",
    "ValueEncoder",
    "embed_items",
    "hash_weights",
    "save_model",
    "tiny_clip",
    "towers",
    "train_tiny_clip",
]
