"""Text on its way to a terminal, a log or a page. What came from outside (names in an artifact, of files, in the errors
of runtimes) may hold what a terminal obeys or what turns the order of letters around: it is shown, never sent."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # what terminals obey: C0, DEL, C1
    "\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb"  # direction, joiners, unseen marks
    "\U000e0000-\U000e007f\ud800-\udfff]"  # tags; halves of characters
)
"""A character that is not sent as it is."""


def printable(text: str, *, lines: bool = False) -> str:
    """The text with every control character, mark of direction and unseen character as `\\u001b`, which JSON too reads
    as that character. lines: keep ends of lines and tabs, in a text whose parts are safe already."""

    def escaped(found: re.Match[str]) -> str:
        character = found[0]
        if lines and character in "\n\t":
            return character
        code = ord(character)
        # JSON has no longer form than four digits: a pair of halves.
        if code > 0xFFFF:
            return f"\\u{0xD800 + (code - 0x10000 >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
        return f"\\u{code:04x}"

    return UNSAFE.sub(escaped, text)


def counted(count: int, things: str) -> str:
    """1, "rows" -> "1 row"; 2000, "rows" -> "2,000 rows". things: a plural, whose last word is regular."""
    if count == 1:
        things = f"{things[:-3]}y" if things.endswith("ies") else things[:-2] if things.endswith(_ES) else things[:-1]
    return f"{count:,} {things}"


_COLUMN = re.compile(r"([A-Za-z]+(?:[ _-][A-Za-z]+){0,3}?)(?:[ _-](?:id|no|nr|number|key|code|hash)|(?<=[a-z])Id)?")


def plural_of(column: str) -> str:
    """What a reader calls those that a column names, for `counted`: "patient", "patient_id" or "PatientID" ->
    "patients"; of a name that is no words, its clusters: "p7" -> "p7 clusters"."""
    found = _COLUMN.fullmatch(re.sub(r"(?<=[a-z])ID$", "_id", column).lower()) if len(column) <= 60 else None
    if found is None:
        return column + " clusters"
    noun = re.sub("[_-]", " ", found[1])
    if re.search("[^aeiou]y$", noun):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if f"{noun}es".endswith(_ES) else noun if noun.endswith("s") else f"{noun}s"


_ES = ("sses", "shes", "ches", "xes")


def say(text: str, *, err: bool = False) -> None:
    """Print lines on standard output, or standard error."""
    import typer  # not for the many that only want to know what is printable

    typer.echo(printable(text, lines=True), err=err)


def say_figures(summary: Mapping[str, Any], last: str, *, as_json: bool, digits: int = 4) -> None:
    """What a command found: as JSON, or a line for each part that has figures of its own, and a last line."""
    if as_json:
        say(json.dumps(summary, indent=2))
        return
    for name, part in summary.items():
        if isinstance(part, Mapping):
            rounded = {key: value if isinstance(value, str) else f"{value:.{digits}g}" for key, value in part.items()}
            say(f"{name}: {', '.join(f'{key} {value}' for key, value in rounded.items())}")
    say(last)


def open_console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """A console on which nothing that is printed means anything but itself: no markup, no control characters."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PlainConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text, lines=True), segment.style)

    return PlainConsole(stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)


def log_to_stderr() -> None:
    """Our own log from INFO on, of libraries what is a warning."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("featherweight").setLevel(logging.INFO)


class PlainFormatter(logging.Formatter):
    """One line a message, whatever is in it. kafka-python logs a connection that was reset with a traceback: that is
    no bug, and we report its consequences."""

    def format(self, record: logging.LogRecord) -> str:
        """A record in lines that a terminal may show; what Kafka's client logs comes without tracebacks."""
        if f"{record.name}.".startswith("kafka."):
            record.exc_info = record.exc_text = None
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        """The message without control characters."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The traceback without control characters but its line ends."""
        return printable(super().formatException(ei), lines=True)


def finalize_html(value: Any) -> Any:
    """For jinja, beside its own escaping: what stands between braces, unless it is HTML of ours."""
    return printable(value, lines=True) if isinstance(value, str) and not hasattr(value, "__html__") else value
