"""Names of fusions, for command lines and benchmarks. Modules take the object, never a name."""

from collections.abc import Mapping
from typing import Any

from mmrec.nn.fusion.base import Fusion
from mmrec.nn.part import Part, Registry

FUSIONS: Registry[Fusion] = Registry("items.fusion", {})
"""Name -> a callable with the keywords dims, out_dim and options of its own.

`mmrec.nn.fusion` fills it. One's own: `FUSIONS["mine"] = MyFusion`.
"""


def build_fusion(
    name: str, *, dims: Mapping[str, int], out_dim: int = 128, **options: Any
) -> Fusion:
    """The fusion of that name, of modalities of these widths.

    Raises:
        InputError: no such name, or an option that this fusion does not have.

    >>> build_fusion("concat", dims={"image": 5, "text": 3, "audio": 4}, out_dim=2).out_dim
    2
    """
    return FUSIONS.build(Part(name, options), dims=dims, out_dim=out_dim)
