"""Matplotlib figures as PNG files."""

import io
import warnings
from typing import Any


def png(figure: Any, **options: Any) -> bytes:
    """The figure as a PNG, with options of `savefig`. Letters that the font lacks are boxes, without a warning each."""
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(image, format="png", **options)
    return image.getvalue()
