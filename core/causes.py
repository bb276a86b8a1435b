"""Why somebody else's code failed, in one line that a person can read."""

from __future__ import annotations

import re

from featherweight.core.errors import FeatherweightError

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_LONGEST = 300


def describe_cause(error: BaseException) -> str:
    """The innermost cause: its type and the first line of its message, without colour codes.

    Libraries wrap what happened into advice for their own developers (torch's exporter says "Next steps:" and hides the
    operator that it does not know), so that the outermost message is the one that helps least.
    """
    while error.__cause__ is not None and not isinstance(error, FeatherweightError):
        error = error.__cause__
    lines = (" ".join(line.split()) for line in _COLOURS.sub("", str(error)).splitlines())
    said = next((line for line in lines if line), "")
    if len(said) > _LONGEST:
        said = f"{said[:_LONGEST]} ..."
    if isinstance(error, FeatherweightError):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
