"""Hooks of the documentation site: pages of the repository's root, links that leave docs/, and the API reference.

The pages are written for readers of the plain repository, where a link may lead to any file. The site has only the
pages, so that a link to another file becomes its path as code. A link to a file that does not exist fails the build.
"""

import logging
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import icrl

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

ROOT_PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the repository's root, by their names on the site."""

REFERENCE = "reference.md"

_FENCED = re.compile(r"^(```.*?^```)$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]]+)\]\((?P<target>[^()\s#]+)(?P<anchor>#[^()\s]*)?\)")
_ENTRY = re.compile(r"^::: (?P<path>\S+)\n +options: \{heading: icrl\.(?P<name>\w+)[,}]", re.MULTILINE)

_log = logging.getLogger("mkdocs.hooks.links")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages of the repository's root."""
    for name, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Resolves the links of a page, and checks that the API reference is complete."""
    if page.file.src_uri == REFERENCE:
        _check_reference(markdown)
    folder = Path(str(page.file.abs_src_path)).parent
    parts = _FENCED.split(markdown)  # every second part is a code block
    parts[::2] = [_LINK.sub(lambda found: _resolved(found, folder, page.file.src_uri), part) for part in parts[::2]]
    return "".join(parts)


def _resolved(found: re.Match[str], folder: Path, page: str) -> str:
    """The link as the site has it: to a page, or plain text where the file is not a part of the site."""
    text, target, anchor = found["text"], found["target"], found["anchor"] or ""
    if re.match(r"[a-z]+:", target):
        return found[0]
    path = Path(os.path.normpath(folder / target))
    if not path.exists():
        _log.warning(f"{page}: links to {target}, which does not exist")
    if path.parent == ROOT and path.name in ROOT_PAGES:
        return f"[{text}]({ROOT_PAGES[path.name]}{anchor})"
    if path.is_relative_to(DOCS):
        return f"[{text}]({path.relative_to(DOCS)}{anchor})"
    shown = path.relative_to(ROOT).as_posix()
    return f"`{shown}`" if text.strip("`") in (shown, path.name) else f"{text} (`{shown}`)"


def _check_reference(markdown: str) -> None:
    """Warns, which fails the build, where the API reference and the public API differ."""
    face = {name: f"{module}.{name}" for name, module in icrl._FACE.items()}
    listed = {entry["name"]: entry["path"] for entry in _ENTRY.finditer(markdown)}
    for name in sorted(face.keys() | listed.keys()):
        if face.get(name) != listed.get(name):
            _log.warning(f"{REFERENCE}: icrl.{name} is listed as {listed.get(name)}, but is {face.get(name)}")
