"""A folder of shards whose item table has grown at its end: what is there stays, the rest is new.

Items that came together lie in shards of their own, so no shard is ever made again.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

ENDS = "ends"  # in the identity: how many items there were after each growth
Fingerprint = Callable[[int], dict[str, Any]]


def shard_rows(ends: Sequence[int], size: int) -> list[range]:
    """The rows of each shard.

    >>> shard_rows([5, 7], 3)
    [range(0, 3), range(3, 5), range(5, 7)]
    """
    spans = zip([0, *ends], ends, strict=False)
    return [
        range(start, min(start + size, stop))
        for begin, stop in spans
        for start in range(begin, stop, size)
    ]


def ends_of(identity: Mapping[str, Any]) -> list[int]:
    """How many items there were after each growth."""
    return [int(end) for end in identity.get(ENDS, [identity["items"]["count"]])]


def without_ends(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What shards are made from, whenever."""
    return {name: value for name, value in identity.items() if name != ENDS}


def has_grown(stored: Mapping[str, Any], given: Mapping[str, Any], first: Fingerprint) -> bool:
    """Whether all is as it was, but for items at the end of the table.

    Args:
        stored, given: identities, of then and of now.
        first: fingerprint of the first so many items of now.
    """
    was, now = stored.get("items"), given.get("items")
    if not isinstance(was, dict) or not isinstance(now, dict):
        return False
    rest = [{k: v for k, v in without_ends(i).items() if k != "items"} for i in (stored, given)]
    return rest[0] == rest[1] and was["count"] < now["count"] and first(was["count"]) == was
