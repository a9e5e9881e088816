"""Hooks of MkDocs: pages that stand outside docs/, and links that lead out of it.

A page with `include: FILE` at its head shows that file of the repository, so that SECURITY.md and CHANGELOG.md have one
home. A link to what is no page (source code, tests) becomes its path: the site does not know where the repository is.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]]+)\]\((?P<to>[^()\s#]+)(?P<anchor>#[^()\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Called by MkDocs for each page, before it is rendered."""
    root = Path(config.config_file_path).parent
    here = posixpath.dirname(page.file.src_uri)
    included = page.meta.get("include")
    if included:
        markdown = (root / included).read_text(encoding="utf-8")

    def mended(link: re.Match[str]) -> str:
        to = link["to"]
        if re.match(r"[a-z]+:", to):
            return link[0]
        base = "" if included else posixpath.join("docs", here)
        path = posixpath.normpath(posixpath.join(base, to))
        is_page = path.startswith("docs/") and files.get_file_from_path(path.removeprefix("docs/")) is not None
        if not is_page:
            return f"{link['text']} (`{path}`)" if link["text"].strip("`") != path else f"`{path}`"
        if not included:
            return link[0]
        return f"[{link['text']}]({posixpath.relpath(path.removeprefix('docs/'), here or '.')}{link['anchor'] or ''})"

    return _LINK.sub(mended, markdown)
