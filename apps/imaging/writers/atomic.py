"""A result file that is either whole or not there, and what to do when it cannot be written."""

from __future__ import annotations

from functools import partial

from featherweight.core.files import atomic_write, write_errors

_REMEDY = "the results are safe in the journal: make room or mend the disk, and the same command writes it"

replace_result = partial(atomic_write, what="could not be written", remedy=_REMEDY)
result_errors = partial(write_errors, what="could not be written", remedy=_REMEDY)
