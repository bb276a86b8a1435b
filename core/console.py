"""What the commands of `core.cli` show: tables and JSON. Imported by the command that shows something."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from featherweight.core.terminal import counted, open_console, printable, say

if TYPE_CHECKING:
    from featherweight.core.artifact import Artifact, FileCheck, Manifest
    from featherweight.core.backends.base import Availability
    from featherweight.core.edge.export import Exported
    from featherweight.core.hardware import Hardware
    from featherweight.core.outcome import Outcome
    from featherweight.core.parity.reproduction import HostRun


def print_json(value: Any) -> None:
    """To stdout, for programs that read it."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def show_hardware(host: Hardware, found: dict[str, Availability], energy: dict[str, str]) -> None:
    """A table of this host, the backends and the sources of energy."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    devices = [f"{device.name} ({device.memory_bytes >> 30} GiB)" for device in host.accelerators]
    for label, text in {**host.facts(), "accelerators": ", ".join(devices) or "none"}.items():
        table.add_row(label, Text(text))
    console = open_console()
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


def show_manifest(directory: Path, sha256: str, manifest: Manifest) -> None:
    """A table of what an artifact holds."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))

    def row(label: str, text: str, style: str = "") -> None:
        table.add_row(label, Text(printable(text), style))

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
    for one in manifest.runtimes or ():
        row("may serve" if one.serves else "may NOT serve", f"{one.backend} {one.precision}: {one.told}")
    for label, files in (
        ("sealed", manifest.sealed),
        ("evidence", manifest.evidence),
        ("document", manifest.documents),
    ):
        for file in files:
            row(label, f"{file.file}, {file.bytes:,} bytes")
    if (parity := manifest.parity) is not None:
        row(
            "reference",
            f"{parity.file}, {parity.cases} reference inputs, judged on {parity.backend} {parity.precision}",
        )
    row("weights from", manifest.weights_source)
    row("recipe", manifest.recipe_sha256 or "none")
    row("made with", ", ".join(f"{name} {number}" for name, number in manifest.versions.items()))
    for note in manifest.notes:
        row("note", note)
    for limit in manifest.missed_limits:
        row("LIMIT MISSED", limit, "bold red")
    if manifest.forced:
        row("FORCED", "sealed by force", "bold red")
    open_console().print(table)


def show_checks(directory: Path, checks: list[FileCheck]) -> None:
    """One line a file, with its fault."""
    console = open_console()
    for check in checks:
        mark = Text("ok      ", "green") if check.passed else Text("FAULT   ", "bold red")
        console.print(
            Text.assemble(mark, printable(f"{check.file}{'' if check.passed else f': {check.fault}'}")), soft_wrap=True
        )
    whole = all(check.passed for check in checks)
    text = f"{directory}: every byte is as it was sealed" if whole else f"{directory}: do not use this artifact"
    console.print(Text(text, "green" if whole else "bold red"), soft_wrap=True)


def show_runs(artifact: Artifact, runs: Sequence[HostRun] | None) -> None:
    """The answer comes last, and says how much it rests on; before it, what was found when the artifact was sealed."""
    console, parity = open_console(), artifact.manifest.parity
    for note in artifact.manifest.notes:
        console.print(Text.assemble(("sealed note  ", "yellow"), printable(note)), soft_wrap=True)
    if runs is None or parity is None:
        console.print(f"{artifact.directory}: no reference inputs sealed: nothing was run", soft_wrap=True)
        return
    table = Table("backend", "threads", "batch", "largest difference", "changed decisions", "", box=None)
    for run in runs:
        if run.difference is not None:
            found = (
                str(run.threads),
                str(run.batch),
                f"{run.difference:.3g}",
                "-" if run.flips is None else str(run.flips),
            )
            colour = "green" if not run.fault else "bold red" if run.judged else "yellow"
            told = (run.fault or "same") + ("" if run.judged else " (not preferred by the artifact, so not judged)")
            table.add_row(run.backend, *found, Text(printable(told), colour))
    console.print(table)
    if any(run.difference is not None and run.flips is None for run in runs):
        text = " -: not known; no output of this artifact is its score, so the outputs alone are compared"
        console.print(Text(text, "yellow"), soft_wrap=True)
    for name, reason in dict.fromkeys((run.backend, run.reason) for run in runs if run.difference is None):
        console.print(Text(printable(f" {name} was not run: {reason}"), "yellow"), soft_wrap=True)
    same = not any(run.fault for run in runs if run.judged)
    verdict = "reproduces" if same else "does not reproduce"
    text = f"{artifact.directory}: this host {verdict} the artifact's {parity.cases} reference decisions"
    text += "" if same else ": do not use it here"
    console.print(Text(text, "green" if same else "bold red"), soft_wrap=True)


def show_export(exported: Exported) -> None:
    """Where the exported file is, and how far it agrees with the artifact."""
    console, agreement = open_console(), exported.agreement
    path = exported.directory / exported.file
    console.print(Text.assemble(("exported  ", "green"), f"{path}, {exported.bytes:,} bytes"), soft_wrap=True)
    for name, difference in agreement.difference.items():
        text = f"          {name}: largest difference {difference:.3g}, allowed {agreement.tolerance[name]:.3g}"
        console.print(Text(f"{text}, on {agreement.inputs} against the artifact's program"), soft_wrap=True)
    flips = (
        "unknown, no reference inputs are sealed" if agreement.decision_flips is None else str(agreement.decision_flips)
    )
    text = f"          changed decisions: {flips}; pairs in another order: {agreement.order_flips}"
    console.print(Text(text), soft_wrap=True)
    for note in exported.facts["notes"]:
        console.print(Text.assemble(("note      ", "yellow"), note), soft_wrap=True)


def outcome_row(outcome: Outcome) -> dict[str, Any]:
    """What `optimize --json` prints of a sealed artifact."""
    artifact = outcome.artifact
    return {
        "directory": str(artifact.directory),
        "sha256": artifact.sha256,
        "backend": outcome.backend,
        "programs": [{"precision": p.precision, "file": p.file, "bytes": p.bytes} for p in artifact.manifest.programs],
        "unchanged": outcome.unchanged,
        "refused": [
            {"candidate": one.name, "description": one.description, "reason": one.reason} for one in outcome.refused
        ],
        "forced": artifact.manifest.forced,
        "missed_limits": list(artifact.manifest.missed_limits),
        "warnings": list(outcome.warnings),
        "evidence": [str(artifact.directory / name) for name in artifact.evidence],
        "candidates": str(outcome.candidates),
        "cases": None if outcome.cases is None else str(outcome.cases),
    }


def show_outcome(outcome: Outcome) -> None:
    """What `optimize` prints in the end: the artifact, what was refused and why."""
    console, artifact = open_console(), outcome.artifact
    _show_front(outcome)
    for one in outcome.refused:
        console.print(
            Text.assemble(("refused ", "yellow"), f"{one.name} ({one.description}): {one.reason}"), soft_wrap=True
        )
    console.print(Text.assemble(("sealed  ", "green"), str(artifact.directory)), soft_wrap=True)
    if outcome.unchanged:
        console.print(Text("        not optimized: this is the baseline itself", "yellow"), soft_wrap=True)
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
    records = outcome.evidence.candidates
    front = [one for one in records if one.latency is not None and (one.on_front or one.chosen)]
    table = Table("front", "made by", "p50 ms", "bytes", "loss (at most)", "", box=None, padding=(0, 2, 0, 0))
    for one in sorted(front, key=lambda one: one.latency.p50_ms if one.latency else 0.0):
        time = "" if one.latency is None else f"{one.latency.p50_ms:.3g}"
        size = "" if one.size_bytes is None else f"{one.size_bytes:,}"
        bound = next((check.found for check in one.checks if check.metric.reads == "ranking"), None)
        loss = "" if one.loss is None or bound is None else f"{one.loss:.4f} ({bound:.4f})"
        missed = [check.name for check in one.checks if check.status != "passed"]
        verdict = Text("chosen", "green") if one.chosen else Text(f"missed {', '.join(missed)}" if missed else "passed")
        table.add_row(Text(one.name), Text(one.description), time, size, loss, verdict)
    console = open_console()
    console.print(table)
    found = outcome.evidence.search
    if found is not None:
        lines = [f"candidates tried: {found.tried}", *([f"kept from earlier runs: {found.kept}"] if found.kept else [])]
        lines += [f"on the front: {len(front)} of {counted(len(records), 'trials')}", *filter(None, [found.stopped])]
        console.print(Text("; ".join(lines)), soft_wrap=True)
    console.print()
