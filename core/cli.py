"""The command `featherweight`: parse, call, print, exit code. Whatever is slow to import is imported by the command
that needs it."""

from __future__ import annotations

import sys

from featherweight.core.signals import end_as_later, interrupt_as_usual

_LISTENING: dict[tuple[str, ...], int] = {("fraud", "serve"): 0, ("fraud", "stream"): 0, ("imaging", "classify"): 130}
"""Commands that listen to SIGINT and SIGTERM -> what they end with when one comes."""
end_as_later(sys.argv[1:], _LISTENING)  # before the imports below, which take a quarter of a second

import json
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from featherweight.core.compare.command import EPILOG as COMPARE_EXAMPLES
from featherweight.core.compare.command import compare
from featherweight.core.doors.command import EPILOG as OPTIMIZE_EXAMPLES
from featherweight.core.doors.command import NEW_RECIPE_EPILOG as NEW_RECIPE_EXAMPLES
from featherweight.core.doors.command import new, optimize
from featherweight.core.errors import EXTRA_OF, FeatherweightError, MissingExtraError, UsageError
from featherweight.core.files import cache_directory
from featherweight.core.options import AsJson, Command
from featherweight.core.silence import redirect_caches

EPILOG = """Examples:

featherweight hardware

featherweight optimize recipe.toml --out models/chest

featherweight optimize model.txt --data cases.parquet --label y --out models/mine

featherweight compare old.csv new.csv --data cases.csv --label y --threshold 0.5 --limit auc_loss=0.01 --out verdict

featherweight artifact verify models/chest

**Exit codes**: 0 done; 1 failed, or a bug; 2 wrong usage or missing input; 3 done, but some items were \
rejected; 4 a limit was missed; 5 the artifact cannot be trusted; 6 the output could not be \
written; 7 what a job keeps to go on is damaged; 130 interrupted (start again to go on)."""

_MAY_BE_EMPTY = ("--topic-prefix", "--topics-prefix", "--until")
"""Options for which an empty text means something."""

_HELP_OF = {
    "data": "List and fetch public data sets.",
    "evidence": "Plan a comparison; show and complete the record of uses of test cases.",
    "fraud": "Score card transactions: files, REST, Kafka. Train a model.",
    "imaging": "Classify medical images in batches. Train a network.",
    "predict": "Score a table with a model of your own.",
}
"""Groups that are not imported to list them -> what their own help begins with, in short."""

_BUILT_IN = (
    EntryPoint("data", "featherweight.core.datasets.cli:app", "featherweight.commands"),
    EntryPoint("evidence", "featherweight.core.evidence_cli:app", "featherweight.commands"),
)


class LazyGroups(TyperGroup):
    """Mounts the groups that apps register (entry points `featherweight.commands`) without importing them: help lists
    their names, and running one imports it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._lazy = {entry.name: entry for entry in _BUILT_IN}
        for entry in sorted(entry_points(group="featherweight.commands"), key=lambda entry: entry.name):
            # What is built in cannot be replaced from outside.
            if entry.name not in self.commands:
                self._lazy.setdefault(entry.name, entry)
        for name in self._lazy:
            self.add_command(TyperCommand(name, help=_HELP_OF.get(name, f"Commands that the package {name} adds.")))
        self._version = next(param for param in self.params if "--version" in param.opts)
        _add_version(self._version, *self.commands.values())

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """An app's commands are imported when one of them is asked for."""
        if args and args[0] in self._lazy:
            group = _load_group(self._lazy[args[0]])
            _add_version(self._version, group)
            return args[0], group, args[1:]
        return super().resolve_command(ctx, args)


def _load_group(entry: EntryPoint) -> Any:
    try:
        group = entry.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name in EXTRA_OF:
            raise
        raise UsageError(_broken(entry, str(error))) from error
    if not isinstance(group, typer.Typer):
        raise UsageError(_broken(entry, f"found {type(group).__name__}, expected a typer.Typer"))
    return typer.main.get_command(group)  # of an app with one command alone, that command


def _add_version(option: Any, *commands: Any) -> None:
    """`--version` on every level, as on the first."""
    for command in commands:
        if not any("--version" in param.opts for param in command.params):
            command.params.append(option)
        _add_version(option, *getattr(command, "commands", {}).values())


def _broken(entry: EntryPoint, why: str) -> str:
    package = f" of {entry.dist.name}" if entry.dist else ""
    return f"the commands {entry.name!r}{package} ({entry.value}) do not load: {why}; reinstall or remove that package"


app = typer.Typer(
    cls=LazyGroups,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},  # the levels below inherit it
)
artifact_app = typer.Typer(
    no_args_is_help=True, help="Show, verify and export artifacts: sealed models with their evidence."
)
app.add_typer(artifact_app, name="artifact")
recipe_app = typer.Typer(no_args_is_help=True, help="Write a recipe for `optimize`.")
app.add_typer(recipe_app, name="recipe")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"featherweight {version('featherweight')}")
        raise typer.Exit


@app.callback(epilog=EPILOG)
def featherweight(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            expose_value=False,  # the levels below have this option too, and their functions do not know it
            help="Print the version.",
        ),
    ] = False,
) -> None:
    """Make trained models small and fast, prove that their decisions did not get worse, and run them."""


@app.command(epilog="Example: featherweight hardware --json")
def hardware(as_json: AsJson = False) -> None:
    """Show what this host has, which backends run on it, which energy counters can be read, and why others cannot."""
    from featherweight.core.backends.registry import find_backend, probe_all
    from featherweight.core.console import print_json, show_hardware
    from featherweight.core.hardware import read_hardware
    from featherweight.core.measure.energy import probe_counters

    host, found, energy = read_hardware(), probe_all(), probe_counters()
    if as_json:
        from dataclasses import asdict

        backends = {name: {**asdict(state), "extra": find_backend(name).extra} for name, state in found.items()}
        print_json({"hardware": asdict(host), "backends": backends, "energy": energy})
    else:
        show_hardware(host, found, energy)


app.command(epilog=OPTIMIZE_EXAMPLES)(optimize)
app.command(epilog=COMPARE_EXAMPLES)(compare)


@app.command(
    epilog="Example, in an image of a container: RUN featherweight warm-up   "
    "Exit codes: 0 all is compiled; 6 the cache folder cannot be written."
)
def warm_up() -> None:
    """Compile now what is otherwise compiled at its first use.

    That is the fraud app and the backend `native`, for this processor, into this user's cache folder. It takes up to a
    minute.
    """
    from featherweight.core.warming import warm_up_all

    warm_up_all()


recipe_app.command(epilog=NEW_RECIPE_EXAMPLES)(new)


@artifact_app.command(epilog="Example: featherweight artifact show models/chest")
def show(
    directory: Annotated[Path, typer.Argument(help="The artifact's folder.")],
    as_json: AsJson = False,
) -> None:
    """Verify an artifact and print what it is."""
    from featherweight.core.artifact import encode_manifest, read_artifact
    from featherweight.core.console import print_json, show_manifest

    artifact = read_artifact(directory)
    if as_json:
        manifest = json.loads(encode_manifest(artifact.manifest))
        print_json({"directory": str(artifact.directory), "sha256": artifact.sha256, "manifest": manifest})
    else:
        show_manifest(artifact.directory, artifact.sha256, artifact.manifest)


@artifact_app.command(
    cls=Command,
    epilog="Example: featherweight artifact verify models/chest && echo whole   "
    "Exit codes: 0 every byte is as it was sealed, and this host reproduces the reference decisions; 5 it is not so; "
    "2 there is no artifact, or no backend here runs it.",
)
def verify(
    directory: Annotated[Path, typer.Argument(help="The artifact's folder.")],
    sha256: Annotated[
        str | None, typer.Option(help="Digest that the artifact must have: as `show` printed it, kept elsewhere.")
    ] = None,
    digests_only: Annotated[
        bool, typer.Option("--digests-only", help="Check the files alone, and run nothing.")
    ] = False,
    time_limit: Annotated[
        float, typer.Option(min=1, max=3600, help="Seconds for running the reference inputs, on all backends together.")
    ] = 25.0,
    as_json: AsJson = False,
) -> None:
    """Check an artifact's files, and that this host reproduces its reference decisions.

    Every file must have its digest, and the programs must hold nothing but what programs need. The backends of this
    host run the reference inputs in batches of 1, 8 and 64, on one and two threads, each backend in a process of its
    own with limits of time and memory.
    """
    from dataclasses import asdict

    from featherweight.core.artifact import read_artifact, verify_artifact
    from featherweight.core.console import print_json, show_checks, show_runs
    from featherweight.core.parity.reproduction import check_parity

    checks, runs = verify_artifact(directory, expected_sha256=sha256), None
    passed = all(check.passed for check in checks)
    if not as_json:
        show_checks(directory, checks)
    if passed and not digests_only:
        artifact = read_artifact(directory, expected_sha256=sha256)
        runs = check_parity(artifact, time_limit_s=time_limit) if artifact.parity is not None else None
        passed = not any(run.fault for run in runs or () if run.judged)
        if not as_json:
            show_runs(artifact, runs)
    if as_json:
        rows = [{"file": check.file, "passed": check.passed, "fault": check.fault} for check in checks]
        parity = None if runs is None else [asdict(run) for run in runs]
        print_json({"directory": str(directory), "passed": passed, "checks": rows, "parity": parity})
    if not passed:
        raise typer.Exit(5)


@artifact_app.command(
    epilog="Example: featherweight artifact export models/chest --target litert --out chest-litert   "
    "Exit codes: 0 exported and verified; 2 the target does not have what the program needs; 4 the file does not "
    "agree with the program, and nothing was written; 5 the artifact cannot be trusted."
)
def export(
    directory: Annotated[Path, typer.Argument(help="The artifact's folder.")],
    target: Annotated[str, typer.Option(help="Edge runtime: executorch, ort-mobile or litert.")],
    out: Annotated[
        Path, typer.Option(help="A new folder for the program's file, export.json and the app's sealed files.")
    ],
    as_json: AsJson = False,
) -> None:
    """Write an artifact's program in the format of an edge runtime, run it there, and compare the outputs."""
    from featherweight.core.console import print_json, show_export
    from featherweight.core.edge.export import export_artifact

    exported = export_artifact(directory, target, out)
    if as_json:
        print_json(exported.facts)
    else:
        show_export(exported)


def main() -> None:
    """The console script: errors that Featherweight raises on purpose become a message and their exit code; Typer
    turns an interruption into 130 and is quiet when the reader of our output has left."""
    redirect_caches(cache_directory())
    interrupt_as_usual()
    try:
        _refuse_empty(sys.argv[1:])
        app(prog_name="featherweight")
    except FeatherweightError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        if error.name is None or error.name not in EXTRA_OF:
            raise
        _fail(MissingExtraError(error.name, EXTRA_OF[error.name], f"featherweight {' '.join(sys.argv[1:2])}"))


def _refuse_empty(words: list[str]) -> None:
    """Raise UsageError for an argument or the value of an option that is empty. As a path it would be the current
    folder, whose files nobody meant, or the place where results end up."""
    for place, (before, word) in enumerate(zip(["", *words], words, strict=False), start=1):
        if word and not (word.startswith("--") and word.endswith("=")):
            continue
        named = word.rstrip("=") or (before if before.startswith("-") else "")
        if named not in _MAY_BE_EMPTY:
            of = f" ({named})" if named else ""
            raise UsageError(f"argument {place}{of} is empty; is a variable of the shell not set?")


def _fail(error: FeatherweightError) -> NoReturn:
    from rich.text import Text

    from featherweight.core.terminal import open_console

    open_console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), str(error)))
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
