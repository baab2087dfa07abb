"""Frozen encoders over raw pictures and titles: resumable extraction to feature parquet.

Importing this loads neither open_clip nor torchvision; they are imported where used.
"""

from mmrec.embed.captions import Captions
from mmrec.embed.clip import OpenClipEncoder
from mmrec.embed.encoder import Encoder, Preprocessing
from mmrec.embed.extract import embed_items
from mmrec.embed.report import EmbedReport
from mmrec.embed.tiny import TinyClip, save_model, train_tiny_clip

__all__ = [
    "Captions",
    "EmbedReport",
    "Encoder",
    "OpenClipEncoder",
    "Preprocessing",
    "TinyClip",
    "embed_items",
    "save_model",
    "train_tiny_clip",
]
