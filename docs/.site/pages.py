"""What the site needs said otherwise than a code host does."""

import re
from typing import Any

_OUT = re.compile(r"\[([^]]+)\]\((?:\.\./)+([^)]+)\)")
_ROW = re.compile(r"^\|.*$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Name files outside of docs/, which are not in the site; unescape pipes in a table's code.

    A code host takes an escaped pipe in a table's code for a pipe, Python-Markdown for both.
    """
    named = _OUT.sub(r"\1 (`\2`)", markdown)
    return _ROW.sub(lambda row: re.sub(r"`[^`]*`", _unescaped, row[0]), named)


def _unescaped(code: re.Match[str]) -> str:
    return code[0].replace("\\|", "|")
