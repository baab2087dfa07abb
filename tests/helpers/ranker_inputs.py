"""What training knew of the batch and the items of `conftest.py`."""

import torch

from mmrec.models import Inputs
from mmrec.models.inputs import Numbers
from mmrec.nn.categorical import Vocabulary
from mmrec.schema import Categorical, Clicks, Items, Schema

KNOWN_USERS = torch.tensor([7, 101, 13])
# Training knew some of the values 0 … 10 of the rows' columns, and three brands of four.
SCHEMA = Schema(
    Clicks(
        history="seen",
        target="shown",
        labels=("label",),
        history_categorical=(Categorical("liked", limit=2),),
    ),
    Items(id="item"),
)
INPUTS = Inputs(
    schema=SCHEMA,
    categorical=(Vocabulary(torch.tensor([0, 2, 3, 5, 9])), Vocabulary(torch.arange(11))),
    numeric=Numbers((0.5, -1.0, 3.0), (2.0, 0.1, 1.0)),
    history_categorical=(Vocabulary(torch.tensor([0, 1])),),
    history_numeric=Numbers((10.0,), (4.0,)),
    item_categorical=(Vocabulary(torch.tensor([0, 1, 3])),),
    item_numeric=Numbers((0.1, 0.2), (1.0, 2.0)),
    known_users=KNOWN_USERS,
)
