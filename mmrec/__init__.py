"""mmrec: multimodal click-through-rate prediction in pure PyTorch.

The names below are the parts that others build with; everything else is reached by its module.
Importing this loads neither open_clip nor polars.
"""

from mmrec.batch import Batch
from mmrec.config import TrainConfig
from mmrec.data.clicks import ClickData
from mmrec.data.items import ItemTable
from mmrec.errors import InputError
from mmrec.models import Inputs, Recipe, build_ranker, describe, get_recipe
from mmrec.models.ranker import Ranker
from mmrec.nn import CrossNetMix, CrossNetV2, ItemEncoder, Part, SequenceEncoder, TargetTransformer
from mmrec.nn.fusion import FUSIONS, AttentionFusion, ConcatFusion, Fusion, build_fusion
from mmrec.predict import predict, write_submission
from mmrec.schema import Schema
from mmrec.stream.loader import make_loader
from mmrec.stream.stream import ParquetStream
from mmrec.train.trainer import fit

__version__ = "0.1.0"

__all__ = [
    "FUSIONS",
    "AttentionFusion",
    "Batch",
    "ClickData",
    "ConcatFusion",
    "CrossNetMix",
    "CrossNetV2",
    "Fusion",
    "InputError",
    "Inputs",
    "ItemEncoder",
    "ItemTable",
    "ParquetStream",
    "Part",
    "Ranker",
    "Recipe",
    "Schema",
    "SequenceEncoder",
    "TargetTransformer",
    "TrainConfig",
    "build_fusion",
    "build_ranker",
    "describe",
    "fit",
    "get_recipe",
    "make_loader",
    "predict",
    "write_submission",
]
