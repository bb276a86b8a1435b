"""Options of all commands: shared ones are declared once, renamed ones keep their old names, helps are sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import typer

from featherweight.core import cli
from featherweight.core.options import OLD_NAMES

VALUES = {"--batch-size": "8", "--image-size": "64", "--max-connections": "9", "--alerts-per-day": "7"}
"""What options that take a number are given; others are given a word."""
SHARED = ("--json", "--model", "--backend", "--verify-decisions", "--max-rejected-share", "--allow-empty", "--data",
          "--report-test", "--max-histories")  # fmt: skip
OWN_MEANING = {
    ("fraud", "train", "--model"),
    ("recipe", "new", "--model"),
    *((*names, "--data") for names in [("compare",), ("optimize",), ("predict",), ("recipe", "new")]),
}
"""The kind of the model to train, or a model of one's own, not a folder; a table of cases, not a data set."""


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    def walk(names: tuple[str, ...], group: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        for name in group.commands:
            _, found, _ = group.resolve_command(typer.Context(group), [name])
            yield (*names, name), found
            if hasattr(found, "commands"):
                yield from walk((*names, name), found)

    yield from walk((), typer.main.get_command(cli.app))


COMMANDS = dict(commands())
OPTIONS = [
    (names, param)
    for names, command in COMMANDS.items()
    for param in command.params
    if param.param_type_name == "option"
]
RENAMED = [
    (names, old, name)
    for names, command in COMMANDS.items()
    for old, name in OLD_NAMES.items()
    if any(name in param.opts for param in command.params)
]


def parse(names: tuple[str, ...], words: list[str]) -> Mapping[str, Any]:
    """What the command's function would be called with, whatever else the command demands."""
    context = COMMANDS[names].make_context(" ".join(names), words, resilient_parsing=True)
    return dict(context.params)


def test_every_renamed_option_is_one_of_a_command() -> None:
    assert {old for _, old, _ in RENAMED} == OLD_NAMES.keys()
    assert {("imaging", "classify"), ("fraud", "stream"), ("fraud", "serve")} <= {names for names, *_ in RENAMED}


@pytest.mark.parametrize(("names", "old", "name"), RENAMED)
def test_an_old_name_does_what_the_new_one_does(names: tuple[str, ...], old: str, name: str) -> None:
    (param,) = (param for param in COMMANDS[names].params if name in param.opts)
    value = [] if param.is_flag else [VALUES.get(name, "nowhere")]
    given = parse(names, [name, *value])
    assert given[param.name] != param.get_default(COMMANDS[names].context_class(COMMANDS[names]))
    assert parse(names, [old, *value]) == given
    if value:
        assert parse(names, [f"{old}={value[0]}"]) == given


@pytest.mark.parametrize(("names", "old", "name"), RENAMED)
def test_no_help_shows_an_old_name(
    names: tuple[str, ...], old: str, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        COMMANDS[names].main(["--help"], prog_name="featherweight")
    text = capsys.readouterr().out
    assert name in text
    assert not re.search(rf"(?<![\w-]){re.escape(old)}(?![\w-])", text)


@pytest.mark.parametrize("name", SHARED)
def test_an_option_that_commands_share_says_the_same_in_each(name: str) -> None:
    helps = {param.help for names, param in OPTIONS if name in param.opts and (*names, name) not in OWN_MEANING}
    assert len(helps) == 1


@pytest.mark.parametrize(("names", "param"), OPTIONS, ids=lambda value: getattr(value, "name", None))
def test_the_help_of_an_option_is_whole_sentences(names: tuple[str, ...], param: Any) -> None:
    assert re.match(r"[A-Z0-9]", param.help or ""), f"{names} {param.opts}: {param.help!r}"
    assert not re.match(r"(Of|That|And|Or|With|At once)\b", param.help), f"{names} {param.opts}: {param.help!r}"
    assert param.help.rstrip().endswith((".", "...")), f"{names} {param.opts}: {param.help!r}"


@pytest.mark.parametrize("names", COMMANDS)
def test_a_command_says_what_it_does(names: tuple[str, ...]) -> None:
    text = COMMANDS[names].help or ""
    assert re.match(r"[A-Z]", text)
    assert not text.startswith("The ")
