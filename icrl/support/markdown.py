"""Text of people and files inside Markdown: shown as it is, never as a tag, a link or the end of a table cell."""

import html
import re


def plain(text: object) -> str:
    """The text on one line, with every character that Markdown or HTML would read as markup escaped."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", line) if re.search(r"[\\`*\[\]|~#!]|<|&[lg]t;", line) else line


def code(text: object) -> str:
    """The text as inline code on one line, which also stays whole within a table."""
    line = " ".join(str(text).split())
    # Backticks show everything as it is, but for themselves, and for the bar, which ends a cell.
    return f"`{line}`" if line and not re.search("[`|<>]", line) else f"<code>{plain(line)}</code>"
