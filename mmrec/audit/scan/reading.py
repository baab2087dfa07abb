"""A batch of columns as `Rows`; what is odd about it is counted, and no value is refused.

B rows, L entries of the longest history of the batch, N items.
"""

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from mmrec.audit.scan.columns import count, holes
from mmrec.audit.scan.features import read_features
from mmrec.audit.scan.rows import Array, Rows, row_keys
from mmrec.audit.scan.split import Counts, LabelCounts, Split
from mmrec.io.lenient import floats, integers, is_scalar, lists
from mmrec.io.parquet import Ints, is_list, left_pad


def read_rows(batch: Mapping[str, pa.Array], split: Split, *, start: int, nobody: int) -> Rows:
    """Turn columns into rows `start`, `start + 1`, …

    Where the file has no user, each row is one: `nobody` and the row's number.
    """
    roles, counts = split.roles, split.counts
    row = start + np.arange(len(batch[roles.target]), dtype=np.int64)
    labels = {
        name: _label(batch.get(name), len(row), one.counts) for name, one in split.by_label.items()
    }
    history = _history(batch.get(roles.history), len(row), split)
    features = read_features(batch, history[:, -1], split)
    users = batch.get(roles.user or "")
    user = nobody + row if users is None else _users(users)
    item = integers(batch[roles.target])
    counts.padding_targets += int((item == 0).sum())
    key, length = row_keys(history, user, item), _lengths(history, counts, start)
    item, history = _known(item, history, counts)
    holds = (history == item[:, None]) & (item != 0)[:, None]
    return Rows(
        row=row,
        user=user,
        item=item,
        history=history,
        length=length,
        hit=holds.any(axis=1),
        stranger=_in_strangers(history, user, item),
        key=key,
        labels=labels,
        others=features.others,
        lists=features.lists,
    )


def _label(array: pa.Array | None, rows: int, counts: LabelCounts) -> Array:
    """(B,) 0 or 1, -1 for what is neither, which is counted unless it is missing."""
    if array is None or not is_scalar(array.type):
        return np.full(rows, -1, dtype=np.int8)
    label = floats(array)
    valid = (label == 0) | (label == 1)
    counts.odd_labels += int((~valid & ~np.isnan(label)).sum())
    return np.where(valid, label, -1).astype(np.int8)


def _users(array: pa.Array) -> Ints:
    """(B,) numbers as they are, 63 bits of anything else."""
    if is_scalar(array.type):
        return integers(array)
    digests = (blake2b(repr(name).encode(), digest_size=8) for name in array.to_pylist())
    hashes = [int.from_bytes(digest.digest(), "big") >> 1 for digest in digests]
    return np.array(hashes, dtype=np.int64)


def _history(array: pa.Array | None, rows: int, split: Split) -> Ints:
    """(B, L) ids, 0 where missing; a row that misses its list or one of its values is counted."""
    if array is None or not is_list(array.type):
        return np.zeros((rows, 1), dtype=np.int64)
    values, lengths = lists(array)
    count(split.columns.missing, split.roles.history, holes(array, values, lengths))
    width = int(lengths.max(initial=0))
    if width and int(lengths.min()) == width:
        return integers(values).reshape(rows, width)
    return left_pad(integers(values), lengths, max(width, 1))


def _lengths(history: Ints, counts: Counts, start: int) -> Ints:
    """(B,) items in each history; padding that does not stand on the left is counted."""
    real = history != 0
    broken = (real[:, 1:] < real[:, :-1]).any(axis=1)  # a 0 right after an item
    late = broken & ~real[:, -1]
    counts.right_padded += int(late.sum())
    counts.with_gaps += int((broken & ~late).sum())
    if late.any() and counts.first_right_padded is None:
        counts.first_right_padded = start + int(np.argmax(late))
    return np.asarray(real.sum(axis=1), dtype=np.int64)


def _known(item: Ints, history: Ints, counts: Counts) -> tuple[Ints, Ints]:
    """Ids with 0 for those outside 0..N - 1, which are counted."""
    # As unsigned numbers, those below 0 are above all others.
    unknown, outside = (ids.view(np.uint64) >= counts.num_items for ids in (item, history))
    if not (unknown.any() or outside.any()):
        return item, history
    counts.unknown_targets += int(unknown.sum())
    counts.unknown_histories += int(outside.any(axis=1).sum())
    return np.where(unknown, 0, item), np.where(outside, 0, history)


def _in_strangers(history: Ints, user: Ints, item: Ints) -> Array:
    """(B,) whether the history of a row far off, which is another user's, holds the item."""
    far = len(item) // 2
    held = (history == np.roll(item, far)[:, None]).any(axis=1)
    return np.asarray(np.roll(held, -far) & (item != 0) & (np.roll(user, -far) != user))
