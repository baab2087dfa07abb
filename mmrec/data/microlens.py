"""The columns of the MicroLens-1M challenge data: the schema where a data set brings none."""

from __future__ import annotations

from mmrec.schema import Categorical, Clicks, Items, Schema

SUBMISSION = ("Task1&2",)  # what the challenge calls the predictions
MICROLENS = Schema(
    Clicks(
        history="item_seq",
        target="item_id",
        labels=("label",),
        user="user_id",
        row_id="ID",
        categorical=(
            Categorical("likes_level", limit=1_000),
            Categorical("views_level", limit=1_000),
        ),
    ),
    Items(
        id="item_id",
        tags="item_tags",
        modalities={"image": "image_emb", "text": "text_emb"},
        vectors="item_emb_d128",
        title="item_title",
    ),
)
