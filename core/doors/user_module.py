"""`module:name`: the user's own Python, asked for by name."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path

from featherweight.core.causes import describe_cause
from featherweight.core.errors import FeatherweightError, UsageError

_NAMED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def names_object(source: str) -> bool:
    """Whether the text is of the form `module:name`."""
    return bool(_NAMED.fullmatch(source))


def import_object(source: str) -> object:
    """What `module:name` is, of a module in the current folder or an installed one; a function is called, without
    arguments, for what it returns. Running that code is what was asked for. Raises UsageError where it fails."""
    module_name, _, name = source.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        found = getattr(importlib.import_module(module_name), name)
        return found() if inspect.isfunction(found) or inspect.isclass(found) else found
    except FeatherweightError:
        raise
    except ModuleNotFoundError as error:
        if error.name != module_name.partition(".")[0]:
            raise UsageError(f"{source}: cannot be imported ({describe_cause(error)})") from error
        raise UsageError(
            f"{source}: there is no module {module_name!r} in the current folder, nor an installed one"
        ) from error
    except AttributeError as error:
        raise UsageError(f"{source}: {describe_cause(error)}") from error
    except Exception as error:  # whatever the user's code raises
        raise UsageError(f"{source}: its code fails ({describe_cause(error)})") from error
    finally:
        sys.path.remove(folder)
