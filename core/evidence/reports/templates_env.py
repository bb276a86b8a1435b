"""What the pages share: the templates, escaped, and how figures are written in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from featherweight.core.evidence.reports.case_history import describe_share, describe_verdict
from featherweight.core.terminal import counted, finalize_html


@cache
def open_templates() -> Environment:
    """Everything that a template is given is escaped. One for all pages: to compile the templates takes longer than to
    fill them in."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=finalize_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=bytes_text,
        ms=ms_text,
        value=value_text,
        long=is_long,
        counted=counted,
        verdict=describe_verdict,
        share=describe_share,
    )
    return environment


_MARKS = re.compile(r"([\\`*\[\]|]|(?<![^\W_])_|_(?![^\W_]))")


def markdown_text(value: object) -> str:
    """Text that Markdown leaves as it is: on one line, its marks escaped, no tags."""
    return _MARKS.sub(r"\\\1", " ".join(str(value).split())).replace("<", "&lt;")


def bytes_text(count: float) -> str:
    """A size in B, kB, MB or GB."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:.3g} GB"


def ms_text(value: float) -> str:
    """A duration in microseconds, milliseconds or seconds."""
    if value < 0.1:
        return f"{value * 1000:.3g} µs"
    return f"{value:.3g} ms" if value < 1000 else f"{value:,.0f} ms"


def joules_text(value: float) -> str:
    """An energy in joules or the unit below that suits it."""
    for unit, size in (("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} nJ"


def value_text(value: object) -> str:
    """A setting or fact of a step, as short text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {value_text(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        text = ", ".join(value_text(part) for part in value)
        return text if len(text) <= 160 else f"{text[:150]} … ({len(value)} values)"
    item = getattr(value, "item", None)
    return value_text(item()) if callable(item) else str(value)


def is_long(value: object) -> bool:
    """Facts layer by layer, which a page folds away."""
    return isinstance(value, Mapping) and len(value) > 6
