"""The parts of the reference that are read off the code, so that they cannot be stale: Markdown out of types.

A page names what it wants in a line `% generated: NAME` or `% generated: fields MODULE:CLASS`.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import msgspec
import typer

from featherweight.apps.fraud.features.catalogue import CUSTOMER_MEANINGS, TERMINAL_MEANINGS
from featherweight.apps.fraud.http import openapi
from featherweight.apps.fraud.sealed import FeatureSchema
from featherweight.core import cli
from featherweight.core.fields import field_meanings, summary_line
from featherweight.core.passes.steps import STEPS
from featherweight.core.recipe import keys, render_value
from featherweight.core.request import new_recipe, recipe_example, registered_tasks
from featherweight.core.web.problems import KINDS

_LINE = re.compile(r"^% generated: (\w[\w-]*)(?: (\S+))?$", re.MULTILINE)


def fill_in(page: str) -> str:
    """A page with every `% generated:` line replaced. Raises KeyError for a name that is not known."""
    return _LINE.sub(lambda found: PARTS[found[1]](*filter(None, [found[2]])), page)


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header)]
    lines += [["---"] * len(lines[0]), *([cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


# Recipes


def recipe() -> str:
    parts = ["### Above all tables\n", _keys(keys.top_keys())]
    for task in registered_tasks():
        example = recipe_example(task)
        parts += [f"### `[source]` of {task}\n", _keys(keys.source_keys(example.settings))]
    for kind, step in STEPS.items():
        parts += [f'### `[[step]]` of kind `"{kind}"`\n', f"{summary_line(step)}\n", _keys(keys.step_keys(kind))]
    parts += ["### `[measure]`\n", _keys(keys.measure_keys())]
    parts += ["### `[limits]`\n", _keys(keys.limit_keys())]
    parts += ["### `[decision]`\n", _keys(keys.decision_keys())]
    parts += ["### `[cases]`\n", _keys(keys.case_keys())]
    parts += ["### `[reasons]`\n", _keys(keys.reason_keys())]
    return "\n".join(parts)


def _keys(found: Iterable[keys.Key]) -> str:
    def default(key: keys.Key) -> str:
        if key.required:
            return "required"
        return "none" if key.default is None else f"`{render_value(key.default)}`"

    rows = (
        (f"`{key.name}`", key.meaning, key.expected + (", or a list of several" if key.several else ""), default(key))
        for key in found
    )
    return table(("key", "meaning", "may be", "default"), rows)


def example(task: str) -> str:
    return f"```toml\n{new_recipe(task)}```\n"


# Commands


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command and group with the words that call it."""
    yield from _below("featherweight", typer.main.get_command(cli.app))


def _below(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield words, command
    context = command.context_class(command, info_name=words)
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from _below(f"{words} {name}", command.resolve_command(context, [name])[1])


def command_line() -> str:
    return "\n".join(_command(words, command) for words, command in commands())


def _command(words: str, command: Any) -> str:
    parts = [f"## `{words}`\n", f"{_paragraphs(command.help)}\n"]
    shown = [param for param in command.params if not param.hidden and "--version" not in param.opts]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    options = [param for param in shown if param.param_type_name == "option"]
    if not hasattr(command, "list_commands"):
        given = "".join(
            f" {param.name.upper()}" if param.required else f" [{param.name.upper()}]" for param in arguments
        )
        parts.append(f"```text\n{words}{given}{' [OPTIONS]' if options else ''}\n```\n")
    if arguments:
        parts.append(table(("argument", "meaning"), ((f"`{one.name.upper()}`", _text(one)) for one in arguments)))
    if options:
        rows = ((_names(one), _text(one), _bounds(one), _default(one)) for one in options)
        parts.append(table(("option", "meaning", "may be", "default"), rows))
    if command.epilog:
        parts.append(f"{_paragraphs(command.epilog)}\n")
    return "\n".join(parts)


def _paragraphs(text: str | None) -> str:
    """Help has wide gaps instead of paragraphs in places."""
    found = re.split(r"\n\s*\n| {3,}", (text or "").strip())
    return "\n\n".join(" ".join(one.split()) for one in found)


def _names(param: Any) -> str:
    return ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))


def _text(param: Any) -> str:
    return getattr(param, "help", None) or ""


def _bounds(param: Any) -> str:
    annotation = param.type_descriptor.annotation
    if annotation is bool:
        return ""
    said = {int: "a whole number", float: "a number", str: "a text"}.get(annotation, "a path")
    low, high = (None if end is None else f"{end:,}" for end in (param.min, param.max))
    return (param.metavar or said) + (f" from {low}" if low else "") + (f" to {high}" if high else "")


def _default(param: Any) -> str:
    if param.required:
        return "required"
    if param.default in (None, False, ""):
        return ""
    return "" if param.default is True and not param.secondary_opts else f"`{param.default}`"


# Types of files and messages


def fields(path: str) -> str:
    """The table of the fields of a msgspec.Struct or dataclass."""
    kind = _load(path)
    meanings = field_meanings(kind)
    if not issubclass(kind, msgspec.Struct):
        names = tuple(kind.__dataclass_fields__)
        return table(("field", "meaning"), ((f"`{name}`", meanings.get(name, "")) for name in names))
    [_], schemas = msgspec.json.schema_components([kind], ref_template="{name}")
    found = schemas[kind.__name__]
    required = found.get("required", ())
    attributes = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
    rows = (
        (f"`{name}`{'' if name in required else ' (may be absent)'}", _json(one), meanings.get(attributes[name], ""))
        for name, one in found["properties"].items()
    )
    return table(("field", "is", "meaning"), rows)


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(f"featherweight.{module}"), name)


def _json(schema: dict[str, Any]) -> str:
    """A JSON schema of one value, in words."""
    if "$ref" in schema:
        return f"a `{schema['$ref'].rpartition('/')[2]}`"
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(one)}`" for one in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "anyOf" in schema:
        return " or ".join(_json(one) for one in schema["anyOf"])
    kind = schema.get("type", "anything")
    if isinstance(kind, list):
        return " or ".join(_json({**schema, "type": one}) for one in kind)
    if kind == "array":
        items = schema.get("items") or {"anyOf": schema.get("prefixItems", [{}])}
        return f"a list: each {_json(items)}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"an object: name to {_json(schema['additionalProperties'])}"
    low, high = schema.get("minimum", schema.get("minLength")), schema.get("maximum", schema.get("maxLength"))
    said = {"integer": "a whole number", "number": "a number", "string": "a text", "boolean": "true or false"}
    said |= {"object": "an object", "null": "null"}
    of = " characters" if kind == "string" else ""
    bounds = "" if low is None else f" from {_end(low)}{of}"
    if high is not None:
        bounds = f" of {_end(low)} to {_end(high)}{of}" if of else f" from {_end(low)} to {_end(high)}"
    return said.get(kind, kind) + bounds


def _end(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) and value < 10**13 else f"{value:g}"


def features() -> str:
    halves = (("the customer's history", CUSTOMER_MEANINGS), ("the terminal's history", TERMINAL_MEANINGS))
    return table(
        ("feature", "meaning", "from"),
        ((f"`{name}`", text, half) for half, meanings in halves for name, text in meanings.items()),
    )


# evidence.json


def evidence() -> str:
    text = files("featherweight.core.evidence.reports").joinpath("evidence.schema.json").read_text("utf-8")
    schema = json.loads(text)
    parts = ["## The document\n", _properties(schema)]
    for name, one in schema["$defs"].items():
        parts += [f"## {name}\n", f"{one.get('description', '')}\n", _properties(one)]
    return "\n".join(parts)


def _properties(schema: dict[str, Any]) -> str:
    rows = list(_flat("", schema))
    return table(("key", "is", "meaning"), rows) if rows else f"{_linked(schema)}\n"


def _flat(prefix: str, schema: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The keys of an object, and below them those of the objects that it holds."""
    for name, one in schema.get("properties", {}).items():
        yield f"`{prefix}{name}`", _linked(one), one.get("description", "")
        for inner in (one, *one.get("anyOf", ()), one.get("items") or {}):
            if isinstance(inner, dict):
                yield from _flat(f"{prefix}{name}{'[]' if one.get('type') == 'array' else ''}.", inner)


def _linked(schema: dict[str, Any]) -> str:
    return re.sub(r"a `(\w+)`", r"[\1](#\1)", _json(schema))


# REST


def rest() -> str:
    schema = FeatureSchema(names=("amount",), reference_values=(None,))
    document = openapi.describe(
        {"paths": {}}, schema, secured=True, open_paths=("/healthz", "/readyz", "/openapi.json")
    )
    parts = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += [f"### `{method.upper()} {path}`\n", f"{operation['summary']}.\n", *_operation(operation)]
    return "\n".join(parts)


def _operation(operation: dict[str, Any]) -> Iterator[str]:
    if body := operation.get("requestBody"):
        content = body["content"]["application/json"]
        yield f"Takes [{_name(content)}](#{_name(content).lower()}), for example:\n"
        yield f"```json\n{json.dumps(content['example'], indent=1)}\n```\n"
    for response in operation["responses"].values():
        for content in response.get("content", {}).values():
            if "example" in content:
                yield f"Answers [{_name(content)}](#{_name(content).lower()}), for example:\n"
                yield f"```json\n{json.dumps(content['example'], indent=1)}\n```\n"
    others = ", ".join(f"`{status}`" for status in sorted(operation["responses"]) if status != "200")
    yield f"Other statuses: {others or 'none'}.\n"


def _name(content: dict[str, Any]) -> str:
    return str(content["schema"]["$ref"]).rpartition("/")[2]


def rest_description() -> str:
    return f"{openapi.DESCRIPTION}\n"


def problems() -> str:
    rows = ((str(code), f"`{kind}`", text) for kind, (code, text) in KINDS.items())
    return table(("status", "`type` ends in", "title"), rows)


# Notebooks


def notebook(name: str) -> str:
    """The cells of docs/notebooks/NAME.ipynb; its headings one level lower, for a page that has others."""
    cells = json.loads((Path(__file__).parent / "notebooks" / f"{name}.ipynb").read_text("utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(re.sub(r"^#", "##", text) if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts) + "\n"


PARTS: dict[str, Callable[..., str]] = {
    "command-line": command_line,
    "evidence": evidence,
    "example": example,
    "features": features,
    "fields": fields,
    "notebook": notebook,
    "problems": problems,
    "recipe": recipe,
    "rest": rest,
    "rest-description": rest_description,
}
