"""Title and tags to one caption."""

import string
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from mmrec.errors import InputError

FIELDS = ("title", "tags")
_FILLERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols that are blank


@dataclass(frozen=True)
class Captions:
    """How an item's words become the caption that the text tower reads.

    Attributes:
        template: `str.format` template of `{title}` and `{tags}`.
        tag_prefix: stands before each tag, `#` by default: titles in this field carry hashtags.
        tag_separator: stands between tags.
        longest: captions are cut to this many characters. Text towers read some 77 tokens, so
            nothing is lost; a title that is one word of ten thousand letters would otherwise
            keep a byte-pair tokenizer busy for minutes.

    Tag 0 is padding and left out; so are nulls. White space is collapsed. A caption without a
    single visible character means that the item has no text (`has_text` False).

    >>> Captions()("Funny cats", [12, 7, 0])
    'Funny cats #12 #7'
    >>> Captions(template="{title}. tags: {tags}")("Funny cats", ["pets"])
    'Funny cats. tags: #pets'
    >>> Captions()(None, [])
    ''

    Raises:
        InputError: the template names another field, or none.
    """

    template: str = "{title} {tags}"
    tag_prefix: str = "#"
    tag_separator: str = " "
    longest: int = 2000

    def __post_init__(self) -> None:
        try:
            names = [name for _, name, _, _ in string.Formatter().parse(self.template)]
        except ValueError as error:
            raise InputError(
                f"a caption template is text with {{title}} and {{tags}}, got {self.template!r}: "
                f"{error}"
            ) from None
        used = [name for name in names if name is not None]
        if not used or any(name not in FIELDS for name in used):
            raise InputError(
                f"a caption template names {{title}}, {{tags}} or both and nothing else, "
                f"got {self.template!r}"
            )
        if self.longest < 1:
            raise InputError(f"longest is at least 1 character, got {self.longest}")

    def __call__(self, title: str | None, tags: Iterable[int | str | None] | None) -> str:
        """The caption of one item, or "" where there are no words."""
        words = _clean(title or "", self.longest)
        words = words if visible(words) else ""
        kept = [str(tag).strip() for tag in tags or () if tag not in (None, 0, "")]
        joined = self.tag_separator.join(self.tag_prefix + tag for tag in kept if visible(tag))
        if not words and not joined:
            return ""
        return _clean(self.template.format(title=words, tags=joined), self.longest)

    def fingerprint(self) -> dict[str, Any]:
        """What must stay equal for captions to stay equal."""
        return asdict(self)


def visible(text: str) -> bool:
    """Whether a text has a letter, digit, mark or symbol that can be seen.

    Zero-width and control characters, joiners and fillers alone are no words.

    >>> visible("a"), visible("\u200b\u00ad"), visible("\u3164")
    (True, False, False)
    """
    return any(unicodedata.category(c)[0] in "LNPS" and c not in _FILLERS for c in text)


def _clean(text: str, longest: int) -> str:
    """Single spaces, no nulls, no lone surrogates (neither survives UTF-8 or a tokenizer)."""
    # A first cut, so that a title of many megabytes is not split into words before it is cut.
    text = text[: 16 * longest].replace("\0", " ").encode("utf-8", "ignore").decode("utf-8")
    return " ".join(text.split())[:longest].rstrip()
