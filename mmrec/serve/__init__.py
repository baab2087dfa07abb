"""A trained ranker as a service: one user's request in, scores out; see docs/guides/serving.md.

Read `scorer.py` first. `request.py` and `names.py` check what comes in, `network.py` and `rows.py`
hold the ranker turned around, `newcomers.py` new items, `load.py` reads a training's folder.
"""

from mmrec.serve.request import Request
from mmrec.serve.scorer import Scorer, ScorerOptions, Top

__all__ = ["Request", "Scorer", "ScorerOptions", "Top"]
