"""Text on its way into a page, a chart or a table."""

import re

_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that reorder or hide text, or may stand in no HTML file.

Of those that Unicode calls default ignorable, joiners and common variation selectors stay: they shape what is seen.
"""


MAX_CHARACTERS = 600
"""Of a text of an example."""


def visible(text: str) -> str:
    """``text`` with characters that could reorder, hide or break it spelled out."""
    return _UNSEEN.sub(lambda found: _escaped(ord(found.group())), text)


def _escaped(code: int) -> str:
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def shortened(text: str, most: int = MAX_CHARACTERS) -> str:
    """``text`` in characters that can be seen, cut where it is long, which is said."""
    cut = text if len(text) <= most else f"{text[:most].rstrip()} … [{len(text):,} characters; shortened]"
    return visible(cut)


def decimal(value: float | None, sign: str = "-") -> str:
    """Three decimals, with a true minus; a dash where there is no value."""
    return "\u2013" if value is None else f"{value:{sign}.3f}".replace("-", "\u2212")


def percent(share: float) -> str:
    """A share as whole percent; small ones are not rounded to nothing."""
    return "<1 %" if 0 < share < 0.005 else f"{share * 100:.0f} %"
