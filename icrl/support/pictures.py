"""Matplotlib figures as PNG files."""

import io
import warnings
from typing import Any

STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.grid": True,
    "grid.color": "#eef0f3",
    "figure.constrained_layout.use": True,
    "savefig.dpi": 150,
    "legend.frameon": False,
    "text.parse_math": False,  # a label such as `cost $5_$` is not a formula
}
"""Settings of matplotlib, for `matplotlib.rc_context`."""


def png(figure: Any, **options: Any) -> bytes:
    """The figure as a PNG, with options of `savefig`. Letters that the font lacks are boxes, without a warning each."""
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(image, format="png", **options)
    return image.getvalue()
