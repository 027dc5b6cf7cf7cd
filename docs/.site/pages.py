"""Changes the pages where the site needs another text than a code host."""

import re
from typing import Any

_OUT = re.compile(r"\[([^]]+)\]\((?:\.\./)+([^)]+)\)")
_ROW = re.compile(r"^\|.*$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace links out of docs/ by names of files, and unescape pipes in a table's code.

    Files outside of docs/ are not in the site. A code host shows an escaped pipe in a table's code
    as a pipe; Python-Markdown shows the backslash too.
    """
    named = _OUT.sub(r"\1 (`\2`)", markdown)
    return _ROW.sub(lambda row: re.sub(r"`[^`]*`", _unescaped, row[0]), named)


def _unescaped(code: re.Match[str]) -> str:
    return code[0].replace("\\|", "|")
