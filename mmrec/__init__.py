"""mmrec: multimodal click-through-rate prediction in pure PyTorch."""

from mmrec.batch import Batch
from mmrec.errors import InputError

__version__ = "0.1.0"

__all__ = ["Batch", "InputError"]
