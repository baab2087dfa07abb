"""Names of fusions, for command lines and benchmarks. Modules take the object, never a name."""

from typing import Any

from mmrec.nn.fusion.base import Fusion
from mmrec.nn.part import Part, Registry

FUSIONS: Registry[Fusion] = Registry("fusion", {})
"""Name -> a callable with the keywords image_dim, text_dim, out_dim and options of its own.

`mmrec.nn.fusion` fills it. One's own: `FUSIONS["mine"] = MyFusion`.
"""


def build_fusion(
    name: str, *, image_dim: int, text_dim: int, out_dim: int = 128, **options: Any
) -> Fusion:
    """The fusion of that name.

    Raises:
        InputError: no such name, or an option that this fusion does not have.

    >>> build_fusion("concat", image_dim=5, text_dim=3, out_dim=2).out_dim
    2
    """
    return FUSIONS.build(
        Part(name, options), image_dim=image_dim, text_dim=text_dim, out_dim=out_dim
    )
