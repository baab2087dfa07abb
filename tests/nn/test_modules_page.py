"""The table of docs/guides/modules.md is true. Its code runs in tests/test_code_blocks.py."""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn

from mmrec.nn import FUSIONS, build_fusion

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "modules.md").read_text()


def test_table_of_fusions_names_all_with_their_parameter_counts() -> None:
    counts = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+) \|[^|]*\|$", PAGE, flags=re.MULTILINE))
    assert set(counts) == set(FUSIONS)
    for name, count in counts.items():
        ready = name == "precomputed"
        dims, width = (
            {"image": 512} if ready else {"image": 512, "text": 384},
            512 if ready else 128,
        )
        fusion = build_fusion(name, dims=dims, out_dim=width)
        assert isinstance(fusion, nn.Module)
        assert sum(p.numel() for p in fusion.parameters()) == int(count.replace(",", "")), name
