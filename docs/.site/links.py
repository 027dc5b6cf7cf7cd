"""Links that lead out of docs/ become plain text in the site, which has no code in it."""

import re
from typing import Any

_OUT = re.compile(r"\[([^]]+)\]\((?:\.\./)+([^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Name the file in place of the link: `[text](../path)`."""
    return _OUT.sub(r"\1 (`\2`)", markdown)
