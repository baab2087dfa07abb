"""Examples of docstrings as code blocks: Markdown would read `>>>` as a quotation."""

from typing import Any

import griffe


class FencedDoctests(griffe.Extension):
    """Sets each paragraph that begins with `>>>` between backticks."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every function, class and module that is read."""
        if obj.docstring is None or ">>>" not in obj.docstring.value:
            return
        parts = obj.docstring.value.split("\n\n")
        fenced = [
            f"```pycon\n{part.rstrip()}\n```" if part.lstrip().startswith(">>>") else part
            for part in parts
        ]
        obj.docstring.value = "\n\n".join(fenced)
