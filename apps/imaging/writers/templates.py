"""The HTML templates, which escape what others have named and show what a reader would obey."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from core.terminal import counted, finalize_html

if TYPE_CHECKING:
    import jinja2


@cache
def read_template(name: str) -> jinja2.Template:
    # Loaded here: the job needs it only when all is classified.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=finalize_html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=format_percent, counted=counted)
    return environment.get_template(name)


def format_percent(value: float) -> str:
    """A share as percent with one decimal; what is not quite none or all is never shown as 0 or 100."""
    if 0 < value < 0.0005:
        return "<0.1%"
    if 0.9995 <= value < 1:
        return ">99.9%"
    return f"{value:.1%}"
