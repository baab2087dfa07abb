"""How far long work has come: a bar on a terminal, a line a minute elsewhere."""

import sys
import time
from typing import Any

from tqdm import tqdm

LINES_EVERY = 60.0  # seconds
_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}, {rate_fmt}, {remaining} left{postfix}"


class Progress(tqdm):  # type: ignore[misc]
    """A tqdm bar on stderr; where that is no terminal, a log say, a whole line now and then.

    Args:
        shown: None and True show it, None a bar alone and no lines; False shows nothing.

    >>> with Progress(total=3, desc="read", unit="row", shown=False) as progress:
    ...     progress.update(3)
    """

    def __init__(self, *args: Any, shown: bool | None = True, **options: Any) -> None:
        self.lines = not sys.stderr.isatty()
        self.shown_at = time.monotonic()
        if self.lines:
            how = {"leave": False, "mininterval": LINES_EVERY, "bar_format": _LINE}
            options = {**options, **how}
        hidden = self.lines if shown is None else not shown
        super().__init__(*args, disable=hidden, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw the bar, or write the line when it is time to."""
        if not self.lines:
            super().display(msg, pos)
            return
        now = time.monotonic()
        if msg is None and now - self.shown_at >= LINES_EVERY:
            self.shown_at = now
            self.fp.write(str(self).strip() + "\n")
            self.fp.flush()

    def clear(self, nolock: bool = False) -> None:
        """Remove the bar; lines stay."""
        if not self.lines:
            super().clear(nolock)
