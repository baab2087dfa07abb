"""The drawings of the concepts pages, as SVG: python docs/img/drawings.py writes them anew.

`order.svg` is what a `ParquetStream` really gives; the others show what a mask says.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec import ParquetStream

HERE = Path(__file__).parent
INK, SOFT, EMPTY, GOOD, GONE = "#1f4e79", "#9aa7b5", "#eef1f5", "#2e7d32", "#b23b3b"
ROWS, GROUPS, BATCH = 192, 16, 24


def svg(width: int, height: int, parts: Iterable[str]) -> str:
    """A picture on white, so that it can be read on a dark page too."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
    head += (
        'font-family="sans-serif" font-size="13">\n<rect width="100%" height="100%" fill="#fff"/>'
    )
    return "\n".join([head, *parts, "</svg>\n"])


def box(x: float, y: float, fill: str, size: float = 20, edge: str = "#fff") -> str:
    place = f'x="{x:g}" y="{y:g}" width="{size:g}" height="{size:g}"'
    return f'<rect {place} fill="{fill}" stroke="{edge}"/>'


def text(x: float, y: float, words: str, fill: str = "#223", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="{fill}" text-anchor="{anchor}">{words}</text>'


def history() -> str:
    """Left-padded histories, and the mask that says which places are real."""
    parts = [
        text(20, 24, "history: item ids, newest last"),
        text(340, 24, "valid: True = a real item"),
    ]
    for row, items in enumerate([[31, 7, 52, 9, 18], [4, 40, 7], [23], []]):
        y = 40 + 34 * row
        for place in range(6):
            at = place - (6 - len(items))
            real = at >= 0
            parts.append(box(20 + 48 * place, y, "#cfe0f0" if real else EMPTY, 44))
            number = str(items[at]) if real else "0"
            parts.append(text(42 + 48 * place, y + 21, number, INK if real else SOFT, "middle"))
            parts.append(box(340 + 48 * place, y, GOOD if real else EMPTY, 44))
    parts.append(
        text(20, 200, "0 is padding, on the left. What stands there cannot change a score.")
    )
    return svg(650, 216, [part.replace('height="44"', 'height="30"') for part in parts])


def presence() -> str:
    """Three items with some modalities missing, and what a fusion reads in their place."""
    parts = [
        text(120, 24, "vectors"),
        text(270, 24, "present"),
        text(400, 24, "what the fusion reads"),
    ]
    rows = [("item 1", True, True), ("item 2", False, True), ("item 3", True, False)]
    for number, (name, *there) in enumerate(rows):
        y = 36 + 62 * number
        parts.append(text(20, y + 28, name))
        for line, (modality, real) in enumerate(zip(("image", "text"), there, strict=True)):
            at = y + 26 * line
            parts.append(text(88, at + 16, modality, SOFT))
            for n in range(5):
                parts.append(box(132 + 22 * n, at, "#cfe0f0" if real else EMPTY))
                parts.append(box(400 + 22 * n, at, "#cfe0f0" if real else "#f3d9a4"))
            parts.append(box(285, at, GOOD if real else GONE))
            parts.append(text(515, at + 15, "its vector" if real else "a learned vector", SOFT))
    parts.append(
        text(
            20,
            238,
            "What stands in the place of an absent vector, NaN included, changes nothing.",
        )
    )
    return svg(650, 252, parts)


def order() -> str:
    """Row groups of a file, and the batches of two epochs, cut for two ranks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        table = pa.table({"group": np.arange(ROWS) // (ROWS // GROUPS)})
        pq.write_table(table, path, row_group_size=ROWS // GROUPS)
        stream = ParquetStream(path, batch_size=BATCH, shuffle=True, seed=7, threads=0)
        epochs = [[batch["group"].tolist() for batch in stream] for _ in range(2)]
    colours = [f"hsl({360 * n // GROUPS},55%,{45 + 20 * (n % 2)}%)" for n in range(GROUPS)]
    parts = [text(20, 24, f"the file: {ROWS} rows in {GROUPS} row groups")]
    parts += [box(20 + 38 * n, 34, colour, 34) for n, colour in enumerate(colours)]
    for number, epoch in enumerate(epochs):
        left, top = 20 + 320 * number, 112
        parts.append(text(left, top - 12, f"epoch {number}: a line is a batch"))
        for line, groups in enumerate(epoch):
            half = len(groups) // 2
            for n, group in enumerate(groups):
                x = left + 12 * n + (6 if n >= half else 0)
                parts.append(box(x, top + 15 * line, colours[group], 11))
        low = top + 15 * len(epoch) + 16
        parts += [text(left, low, "rank 0", SOFT), text(left + 150, low, "rank 1", SOFT)]
    return svg(650, 264, parts)


DRAWINGS: dict[str, Callable[[], str]] = {"history": history, "presence": presence, "order": order}

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (HERE / f"{name}.svg").write_text(draw())
