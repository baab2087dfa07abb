"""What a run says at its end: items, statuses, rate, where the time went."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmrec.embed.output import REPORT, read_statuses
from mmrec.io.files import write_json
from mmrec.io.pictures import NO_IMAGE_SOURCE, OK

LISTED = 1000  # problems spelled out in the report; all stand in the shards


@dataclass
class Seconds:
    """Where the time went, of this rank and this run.

    `decode` is summed over workers and `write` runs beside everything else, so these need not add
    up to `total`. `wait` is how long the main process had nothing to do but wait for pictures.
    """

    decode: float = 0.0
    tokenize: float = 0.0
    wait: float = 0.0
    transfer: float = 0.0
    forward: float = 0.0
    write: float = 0.0
    total: float = 0.0

    def add(self, name: str, seconds: float) -> None:
        """Count `seconds` more under `name`."""
        setattr(self, name, getattr(self, name) + seconds)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the time of a block, which waits for what it does, under `name`."""
        start = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - start)


@dataclass(frozen=True)
class EmbedReport:
    """The result of `embed_items`.

    Attributes:
        out: folder of shards.
        encoders: modality -> name of its encoder.
        items: over the whole output.
        present: modality -> items that have it.
        dims: modality -> width of its vectors.
        statuses: how many items have which status.
        problems: (item id, status, note) of pictures that are not there or could not be used.
        oddities: (item id, note) of pictures that were used but are not quite what they seem.
        shards, shards_before: how many there are, and how many of them an earlier run had made.
        items_now: of this rank and this run.
        encoded: modality -> contents that were encoded for them; identical ones of a shard once.
        seconds: where the time went.
    """

    out: Path
    encoders: dict[str, str]
    items: int
    present: dict[str, int]
    dims: dict[str, int]
    statuses: dict[str, int]
    problems: list[tuple[int, str, str]]
    oddities: list[tuple[int, str]]
    shards: int
    shards_before: int
    items_now: int
    encoded: dict[str, int]
    seconds: Seconds = field(default_factory=Seconds)

    @property
    def rate(self) -> float:
        """Items a second, of this rank and this run."""
        return self.items_now / self.seconds.total if self.seconds.total > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """As in _report.json; long lists are cut, with a count of what was left out."""
        content = asdict(self)
        content["out"] = str(self.out)
        content["items_per_second"] = round(self.rate, 2)
        content["seconds"] = {k: round(v, 3) for k, v in content["seconds"].items()}
        for key in ("problems", "oddities"):
            rows = content[key]
            content[key] = [list(row) for row in rows[:LISTED]]
            content[f"{key}_left_out"] = max(0, len(rows) - LISTED)
        return content

    def write(self) -> None:
        """Write _report.json into the output folder."""
        write_json(self.out / REPORT, self.to_json())

    def __str__(self) -> str:
        lines = [
            f"{self.items:,} items in {self.out}: "
            + "; ".join(
                f"{self.present[name]:,} with {name} ({width} wide, {self.encoders[name]})"
                for name, width in self.dims.items()
            ),
            "statuses: " + ", ".join(f"{name} {n:,}" for name, n in self.statuses.items()),
        ]
        s = self.seconds
        if self.items_now:
            lines.append(
                f"{self.items_now:,} items in {s.total:.1f} s ({self.rate:,.0f}/s); decode "
                f"{s.decode:.1f} s over all workers, waited {s.wait:.1f} s, transfer "
                f"{s.transfer:.1f} s, forward {s.forward:.1f} s, write {s.write:.1f} s"
            )
        if self.shards_before:
            lines.append(f"{self.shards_before} of {self.shards} shards were there already")
        return "\n".join(lines)


def gather(out: Path, **measured: Any) -> EmbedReport:
    """Read every shard's statuses and join them with what this run measured."""
    statuses: Counter[str] = Counter()
    problems: list[tuple[int, str, str]] = []
    oddities: list[tuple[int, str]] = []
    items, present = 0, Counter[str]()
    for ids, there, status, note in read_statuses(out):
        items += len(ids)
        present.update(there)
        statuses.update(status)
        for key, state, words in zip(ids, status, note, strict=True):
            if state not in (OK, NO_IMAGE_SOURCE):
                problems.append((key, state, words))
            elif words:
                oddities.append((key, words))
    return EmbedReport(
        out=out,
        items=items,
        present=dict(present),
        statuses=dict(statuses.most_common()),
        problems=problems,
        oddities=oddities,
        **measured,
    )
