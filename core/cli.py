"""The command `featherweight`: parse, call, print, exit code. Whatever is slow to import is imported by the command
that needs it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from core.errors import FeatherweightError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from core.artifact import FileCheck, Manifest
    from core.backends.base import Availability
    from core.edge.export import Exported
    from core.hardware import Hardware
    from core.optimize import Outcome
    from core.probing import HostRun

EPILOG = """Examples:

featherweight hardware

featherweight optimize recipe.toml --out models/chest

featherweight artifact verify models/chest

**Exit codes**: 0 done; 1 failed, or a bug; 2 wrong usage or missing input; 3 done, but some items were \
rejected; 4 a limit was missed and nothing was sealed; 5 the artifact cannot be trusted; 6 the output could not be \
written; 130 interrupted (start again to go on)."""

_EXTRAS = {
    **dict.fromkeys(
        ("lightgbm", "onnx", "onnxscript", "safetensors", "sklearn", "torch", "torch_pruning", "torchvision"), "train"
    ),
    "openvino": "openvino",
    **dict.fromkeys(
        ("fastapi", "httptools", "kafka", "numba", "prometheus_client", "starlette", "uvicorn", "xxhash"), "fraud"
    ),
}
"""Modules that the base install does not have -> the extra that brings them."""

_DATA = EntryPoint("data", "core.datasets_cli:app", "featherweight.commands")


class LazyGroups(TyperGroup):
    """Mounts the groups that apps register (entry points `featherweight.commands`) without importing them: help lists
    their names, and running one imports it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._lazy = {_DATA.name: _DATA}
        for entry in sorted(entry_points(group="featherweight.commands"), key=lambda entry: entry.name):
            # What is built in cannot be replaced from outside.
            if entry.name not in self.commands:
                self._lazy.setdefault(entry.name, entry)
        for name in self._lazy:
            text = "The public data sets: list, fetch." if name == "data" else f"The {name} app."
            self.add_command(TyperCommand(name, help=text))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args and args[0] in self._lazy:
            return args[0], _load_group(self._lazy[args[0]]), args[1:]
        return super().resolve_command(ctx, args)


def _load_group(entry: EntryPoint) -> Any:
    try:
        group = entry.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
            raise
        raise UsageError(_broken(entry, str(error))) from error
    if not isinstance(group, typer.Typer):
        raise UsageError(_broken(entry, f"found {type(group).__name__}, expected a typer.Typer"))
    return typer.main.get_group(group)


def _broken(entry: EntryPoint, why: str) -> str:
    package = f" of {entry.dist.name}" if entry.dist else ""
    return f"the commands {entry.name!r}{package} ({entry.value}) do not load: {why}; reinstall or remove that package"


app = typer.Typer(
    cls=LazyGroups,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
artifact_app = typer.Typer(no_args_is_help=True, help="Look at and check artifacts: sealed models with their evidence.")
app.add_typer(artifact_app, name="artifact")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"featherweight {version('featherweight')}")
        raise typer.Exit


@app.callback(epilog=EPILOG)
def featherweight(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Make trained models small and fast, prove that their decisions did not get worse, and run them."""


@app.command(epilog="Example: featherweight hardware --json")
def hardware(as_json: AsJson = False) -> None:
    """What this host has, which backends can run on it, which energy counters can be read, and why others cannot."""
    from core.backends.registry import find_backend, probe_all
    from core.energy import probe_counters
    from core.hardware import read_hardware

    host, found, energy = read_hardware(), probe_all(), probe_counters()
    if as_json:
        from dataclasses import asdict

        backends = {name: {**asdict(state), "extra": find_backend(name).extra} for name, state in found.items()}
        _print_json({"hardware": asdict(host), "backends": backends, "energy": energy})
    else:
        _show_hardware(host, found, energy)


def _parse_budget(text: str) -> float:
    """Seconds of "90s", "30m" or "2h"."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smh])", text.strip())
    if found is None or float(found[1]) == 0:
        raise typer.BadParameter(f"found {text!r}, expected a time such as 90s, 30m or 2h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@app.command(
    epilog="Example: featherweight optimize recipe.toml --out models/chest --budget 30m   "
    "Exit codes: 0 sealed; 2 the recipe has faults (all are listed) or input is missing; 4 a limit was missed; "
    "130 interrupted: the same command goes on where it was."
)
def optimize(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a TOML file: source, steps, backends, limits.")],
    out: Annotated[Path, typer.Option(help="The folder that becomes the artifact; an older artifact is replaced.")],
    budget: Annotated[
        float | None,
        typer.Option(
            parser=_parse_budget,
            metavar="TIME",
            help="Search for so long (90s, 30m, 2h), the most promising first, with new values between those that the "
            "recipe lists. Without it all that the recipe lists are tried.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Seal the best candidate though it misses limits.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads of a session; the recipe's unless given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try what a recipe says and seal the fastest candidate that keeps all its limits."""
    if not os.path.isfile(recipe):  # noqa: PTH113  (Path.is_file raises for a name that is too long)
        raise UsageError(f"{recipe}: no such recipe file")
    from core.optimize import run_recipe

    with _progress() as progress:
        outcome = run_recipe(recipe, out, force=force, threads=threads, budget_s=budget, progress=progress)
    if as_json:
        _print_json(_outcome_row(outcome))
    else:
        _show_outcome(outcome)


@artifact_app.command(epilog="Example: featherweight artifact show models/chest")
def show(
    directory: Annotated[Path, typer.Argument(help="The artifact's folder.")],
    as_json: AsJson = False,
) -> None:
    """Verify an artifact and print what it is."""
    from core.artifact import encode_manifest, read_artifact

    artifact = read_artifact(directory)
    if as_json:
        manifest = json.loads(encode_manifest(artifact.manifest))
        _print_json({"directory": str(artifact.directory), "sha256": artifact.sha256, "manifest": manifest})
    else:
        _show_manifest(artifact.directory, artifact.sha256, artifact.manifest)


@artifact_app.command(
    epilog="Example: featherweight artifact verify models/chest && echo whole   "
    "Exit codes: 0 every byte is as it was sealed, and this host gives the sealed decisions; 5 it is not so; 2 no "
    "backend here runs it."
)
def verify(
    directory: Annotated[Path, typer.Argument(help="The artifact's folder.")],
    sha256: Annotated[
        str | None, typer.Option(help="The artifact's digest as `show` prints it, kept elsewhere.")
    ] = None,
    no_run: Annotated[bool, typer.Option("--no-run", help="Check the digests alone; run nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check every file of an artifact against its digest, and that the backends of this host give the sealed decisions
    on the sealed inputs, in batches of 1, 8 and 64, on one and two threads."""
    from dataclasses import asdict

    from core.artifact import read_artifact, verify_artifact
    from core.probing import check_parity

    checks, runs = verify_artifact(directory, expected_sha256=sha256), None
    passed = all(check.passed for check in checks)
    if not as_json:
        _show_checks(directory, checks)
    if passed and not no_run:
        artifact = read_artifact(directory, expected_sha256=sha256)
        runs = check_parity(artifact) if artifact.parity is not None else None
        passed = not any(run.fault for run in runs or () if run.judged)
        if not as_json:
            _show_runs(directory, runs)
    if as_json:
        rows = [{"file": check.file, "passed": check.passed, "fault": check.fault} for check in checks]
        parity = None if runs is None else [asdict(run) for run in runs]
        _print_json({"directory": str(directory), "passed": passed, "checks": rows, "parity": parity})
    if not passed:
        raise typer.Exit(5)


@artifact_app.command(
    epilog="Example: featherweight artifact export models/chest --target litert --out chest-litert   "
    "Exit codes: 0 exported and verified; 2 the target does not have what the program needs; 4 the file does not "
    "agree with the program, and nothing was written; 5 the artifact cannot be trusted."
)
def export(
    directory: Annotated[Path, typer.Argument(help="The artifact's folder.")],
    target: Annotated[str, typer.Option(help="executorch, ort-mobile or litert.")],
    out: Annotated[Path, typer.Option(help="A new folder: the file, export.json and the app's sealed files.")],
    as_json: AsJson = False,
) -> None:
    """Write an artifact's program in the format of an edge runtime, run it there and compare."""
    from core.edge.export import export_artifact

    exported = export_artifact(directory, target, out)
    if as_json:
        _print_json(exported.facts)
    else:
        _show_export(exported)


def main() -> None:
    """The console script: errors that Featherweight raises on purpose become a message and their exit code; Typer
    turns an interruption into 130 and is quiet when the reader of our output has left."""
    try:
        app(prog_name="featherweight")
    except FeatherweightError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        _fail(MissingExtraError(error.name, _EXTRAS[error.name], f"featherweight {' '.join(sys.argv[1:2])}"))


def _fail(error: FeatherweightError) -> NoReturn:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), str(error)))
    sys.exit(error.exit_code)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """One bar a stage, on stderr, so that --json keeps stdout for itself."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, Any] = {}
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:

        def report(stage: str, done: int, total: int) -> None:
            """What stands before a colon is the stage, and what after it tells how far it is."""
            name, shown = stage.partition(": ")[0], stage.replace("[", r"\[")
            if name not in tasks:
                tasks[name] = bars.add_task(shown, total=total)
            bars.update(tasks[name], completed=done, total=total, description=shown)

        yield report


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _show_hardware(host: Hardware, found: dict[str, Availability], energy: dict[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    devices = [f"{device.name} ({device.memory_bytes >> 30} GiB)" for device in host.accelerators]
    for label, text in {**host.facts(), "accelerators": ", ".join(devices) or "none"}.items():
        table.add_row(label, Text(text))
    console = _console()
    console.print(table)
    console.print()
    backends = Table("backend", "version", "devices", "precisions", "can run", box=None, padding=(0, 2, 0, 0))
    for name, state in found.items():
        answer = Text("yes", "green") if state.available else Text(f"no: {state.reason}", "yellow")
        backends.add_row(name, state.version, " ".join(state.devices), " ".join(state.precisions), answer)
    console.print(backends)
    console.print()
    counters = Table("energy counter", "can be read", box=None, padding=(0, 2, 0, 0))
    for name, text in energy.items():
        counters.add_row(name, Text(text, "yellow" if text.startswith("no: ") else "green"))
    console.print(counters)


def _show_manifest(directory: Path, sha256: str, manifest: Manifest) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))

    def row(label: str, text: str, style: str = "") -> None:
        table.add_row(label, Text(text, style))

    row("artifact", f"{manifest.name} ({directory})")
    row("sha256", sha256)
    row("app", manifest.app)
    row("created", manifest.created.isoformat(timespec="seconds"))
    for label, entries in (("input", manifest.inputs), ("output", manifest.outputs)):
        for entry in entries:
            row(label, str(entry.spec()))
    row("labels", ", ".join(manifest.labels))
    for program in manifest.programs:
        row("program", f"{program.precision}: {program.file}, {program.bytes:,} bytes")
    if manifest.preferences:
        choices = [f"{one.backend} {one.precision}, threads {one.threads}" for one in manifest.preferences]
        row("preferred", "; ".join(choices))
    for label, files in (
        ("sealed", manifest.sealed),
        ("evidence", manifest.evidence),
        ("document", manifest.documents),
    ):
        for file in files:
            row(label, f"{file.file}, {file.bytes:,} bytes")
    if (parity := manifest.parity) is not None:
        row("probes", f"{parity.file}, {parity.cases} made-up inputs, judged on {parity.backend} {parity.precision}")
    row("weights from", manifest.weights_source)
    row("recipe", manifest.recipe_sha256 or "none")
    row("made with", ", ".join(f"{name} {number}" for name, number in manifest.versions.items()))
    for note in manifest.notes:
        row("note", note)
    for limit in manifest.missed_limits:
        row("LIMIT MISSED", limit, "bold red")
    if manifest.forced:
        row("FORCED", "sealed by force", "bold red")
    _console().print(table)


def _show_checks(directory: Path, checks: list[FileCheck]) -> None:
    from rich.text import Text

    console = _console()
    for check in checks:
        mark = Text("ok      ", "green") if check.passed else Text("FAULT   ", "bold red")
        console.print(Text.assemble(mark, check.file, "" if check.passed else f": {check.fault}"), soft_wrap=True)
    whole = all(check.passed for check in checks)
    text = f"{directory}: every byte is as it was sealed" if whole else f"{directory}: do not use this artifact"
    console.print(Text(text, "green" if whole else "bold red"), soft_wrap=True)


def _show_runs(directory: Path, runs: Sequence[HostRun] | None) -> None:
    from rich.table import Table
    from rich.text import Text

    console = _console()
    if runs is None:
        console.print(f"{directory}: no parity inputs sealed: nothing was run", soft_wrap=True)
        return
    table = Table("backend", "threads", "batch", "largest difference", "other decisions", "", box=None)
    for run in runs:
        if run.difference is not None:
            found = str(run.threads), str(run.batch), f"{run.difference:.3g}", str(run.flips)
            colour = "green" if not run.fault else "bold red" if run.judged else "yellow"
            told = (run.fault or "same") + ("" if run.judged else " (not preferred by the artifact, so not judged)")
            table.add_row(run.backend, *found, Text(told, colour))
    console.print(table)
    for name, reason in dict.fromkeys((run.backend, run.reason) for run in runs if run.difference is None):
        console.print(Text(f" {name} was not run: {reason}", "yellow"), soft_wrap=True)
    same = not any(run.fault for run in runs if run.judged)
    text = "this host decides as it was sealed" if same else "this host decides otherwise: do not use it here"
    console.print(Text(f"{directory}: {text}", "green" if same else "bold red"), soft_wrap=True)


def _show_export(exported: Exported) -> None:
    from rich.text import Text

    console, agreement = _console(), exported.agreement
    path = exported.directory / exported.file
    console.print(Text.assemble(("exported  ", "green"), f"{path}, {exported.bytes:,} bytes"), soft_wrap=True)
    for name, difference in agreement.difference.items():
        text = f"          {name}: largest difference {difference:.3g}, allowed {agreement.tolerance[name]:.3g}"
        console.print(Text(f"{text}, on {agreement.inputs} against the artifact's program"), soft_wrap=True)
    flips = "unknown, no probes are sealed" if agreement.decision_flips is None else str(agreement.decision_flips)
    text = f"          decisions that are others: {flips}; pairs in another order: {agreement.order_flips}"
    console.print(Text(text), soft_wrap=True)
    for note in exported.facts["notes"]:
        console.print(Text.assemble(("note      ", "yellow"), note), soft_wrap=True)


def _outcome_row(outcome: Outcome) -> dict[str, Any]:
    artifact = outcome.artifact
    return {
        "directory": str(artifact.directory),
        "sha256": artifact.sha256,
        "backend": outcome.backend,
        "programs": [{"precision": p.precision, "file": p.file, "bytes": p.bytes} for p in artifact.manifest.programs],
        "forced": artifact.manifest.forced,
        "missed_limits": list(artifact.manifest.missed_limits),
        "warnings": list(outcome.warnings),
        "evidence": [str(artifact.directory / name) for name in artifact.evidence],
        "candidates": str(outcome.candidates),
        "cases": None if outcome.cases is None else str(outcome.cases),
    }


def _show_outcome(outcome: Outcome) -> None:
    from rich.text import Text

    console, artifact = _console(), outcome.artifact
    _show_front(outcome)
    console.print(Text.assemble(("sealed  ", "green"), str(artifact.directory)), soft_wrap=True)
    for program in artifact.manifest.programs:
        console.print(Text(f"        {program.precision}: {program.bytes:,} bytes"))
    console.print(Text(f"        fastest here on {outcome.backend}"))
    for limit in artifact.manifest.missed_limits:
        console.print(Text.assemble(("limit missed  ", "bold red"), limit), soft_wrap=True)
    for warning in outcome.warnings:
        console.print(Text.assemble(("note    ", "yellow"), warning), soft_wrap=True)
    for name in artifact.evidence:
        console.print(Text(f"        {artifact.directory / name}"), soft_wrap=True)
    console.print(Text(f"        {outcome.candidates} (all that was tried)"), soft_wrap=True)
    if outcome.cases is not None:
        console.print(Text(f"        {outcome.cases} (holds patients' or cardholders' data)"), soft_wrap=True)


def _show_front(outcome: Outcome) -> None:
    """The candidates that no other beats in speed, size and loss at once, the fastest first."""
    from rich.table import Table
    from rich.text import Text

    records = outcome.evidence.candidates
    front = [one for one in records if one.latency is not None and (one.on_front or one.chosen)]
    table = Table("front", "p50 ms", "bytes", "loss", "", box=None, padding=(0, 2, 0, 0))
    for one in sorted(front, key=lambda one: one.latency.p50_ms if one.latency else 0.0):
        time = "" if one.latency is None else f"{one.latency.p50_ms:.3g}"
        size = "" if one.size_bytes is None else f"{one.size_bytes:,}"
        loss = "" if one.loss is None else f"{one.loss:.4f}"
        missed = [check.name for check in one.checks if check.status != "passed"]
        verdict = Text("chosen", "green") if one.chosen else Text(f"missed {', '.join(missed)}" if missed else "passed")
        table.add_row(Text(one.name), time, size, loss, verdict)
    console = _console()
    console.print(table)
    found = outcome.evidence.search
    if found is not None:
        lines = [f"candidates tried: {found.tried}", *([f"kept from earlier runs: {found.kept}"] if found.kept else [])]
        lines += [f"on the front: {len(front)} of {len(records)} trials", *filter(None, [found.stopped])]
        console.print(Text("; ".join(lines)), soft_wrap=True)
    console.print()


if __name__ == "__main__":
    main()
