"""What MkDocs needs beside docs/: pages that lie elsewhere in the project, the tutorial as a page, links to both."""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {
    "CHANGELOG.md": "project/changes.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "benchmarks/results/README.md": "project/results.md",
}
"""Pages by where they lie in the project, and where they are in the site."""
NOTEBOOK = "tutorial.ipynb"
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
_ROLE = re.compile(r":(?:class|func|meth|data|attr|mod):(?=<code)")


def on_files(files: Files, config: Any) -> Files:
    for path, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text(encoding="utf-8")))
    text = notebook_page((ROOT / "docs" / NOTEBOOK).read_text(encoding="utf-8"))
    files.append(File.generated(config, "tutorial.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    here = page.file.src_uri
    places = {site: path for path, site in OUTSIDE.items()}
    folder = posixpath.dirname(places.get(here, f"docs/{here}"))

    def moved(found: re.Match[str]) -> str:
        if ":" in found["target"] or found["image"]:
            return found[0]
        path = posixpath.normpath(posixpath.join(folder, found["target"]))
        site = OUTSIDE.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if site is None:
            return found["text"] if (ROOT / path).exists() else found[0]
        link = posixpath.relpath(site, posixpath.dirname(here) or ".")
        return f"[{found['text']}]({link}{found['anchor'] or ''})"

    return _LINK.sub(moved, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name things as Sphinx does."""
    return _ROLE.sub("", html)


def notebook_page(text: str) -> str:
    """The cells of a notebook as Markdown."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(parts) + "\n"
