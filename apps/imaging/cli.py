"""`featherweight imaging`: classify images with a sealed model, train a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import LimitError
from core.signals import stopping_on_signals, telling_how_to_go_on
from core.terminal import counted, open_console, printable, say

if TYPE_CHECKING:
    from apps.imaging.writers.summary import Summary

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
INTERRUPTED = 130
SOME_REJECTED = 3
GOES_ON = "interrupted; what is classified is kept, and the same command goes on"
REFERENCE_MODEL = "chest-xray"


@app.callback()
def imaging() -> None:
    """Classify medical images with a sealed model; train one."""


@app.command(
    epilog="Example: featherweight imaging classify scans/ --out results/\n\n"
    "**Exit codes**: 0 all classified; 2 nothing to do as asked (no files: see --allow-empty); 3 done, but some files "
    "were rejected (rejected.csv says why); 4 done, but more than --max-rejected-share of the files were rejected; "
    "5 the model cannot be trusted, or decides otherwise here (--verify-parity); 6 the results could not be written; "
    "7 the journal in --out is damaged (--restart begins again); 130 interrupted (the same command goes on)."
)
def classify(
    source: Annotated[
        Path, typer.Argument(help="Folder (searched recursively), file, or .csv/.parquet list with a column `path`.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for results, page and journal; made if absent. Not the folder of the images.")
    ],
    model: Annotated[
        Path | None, typer.Option(help="Artifact folder; the bundled chest x-ray model if not given.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Decoding processes; one per usable core if not given.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the model; decoding needs the cores more.")] = 1,
    batch: Annotated[int, typer.Option(min=1, max=256, help="Images a run of the model.")] = 16,
    backend: Annotated[str | None, typer.Option(help="Runtime; the artifact's fastest here if not given.")] = None,
    verify_parity: Annotated[
        bool, typer.Option("--verify-parity", help="Start only if the sealed inputs give the sealed decisions here.")
    ] = False,
    decode_timeout: Annotated[float, typer.Option(min=1, help="Seconds after which a file is rejected.")] = 60.0,
    thumbnails: Annotated[
        bool, typer.Option(help="Whether the page shows small pictures; without, no pixel is stored anywhere.")
    ] = True,
    retry_rejected: Annotated[
        bool, typer.Option("--retry-rejected", help="Try files again that an earlier run rejected.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what an earlier run left in --out.")] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="A source without files is a night without images: code 0, no rows.")
    ] = False,
    max_rejected_share: Annotated[
        float, typer.Option(min=0, max=1, help="Code 4 where a larger share of the files is rejected; 1 allows all.")
    ] = 1.0,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on standard output.")] = False,
) -> None:
    """Classify images; started again after any interruption, it goes on where it was.

    Writes results.parquet, results.csv, rejected.parquet, rejected.csv, summary.json and index.html to --out. Files
    that changed since an earlier run are classified again, rows of files that are gone are dropped. Of a DICOM file,
    nothing but UIDs is written.
    """

    from apps.imaging.batch import Job, run_job
    from apps.imaging.classify import read_model
    from apps.imaging.progress import showing_progress
    from core.bundled import data_directory
    from core.hardware import count_usable_cores

    console = open_console(stderr=True)
    job = Job(
        source=source,
        out=out,
        workers=workers or count_usable_cores(),
        threads=threads,
        batch=batch,
        thumbnails=thumbnails,
        restart=restart,
        retry_rejected=retry_rejected,
        allow_empty=allow_empty,
        decode_timeout_s=decode_timeout,
    )
    with telling_how_to_go_on(GOES_ON):
        sealed = read_model(
            model or data_directory() / "models" / REFERENCE_MODEL, backend=backend, verify_parity=verify_parity
        )
        with stopping_on_signals() as stopping, showing_progress(console) as show:
            summary = run_job(job, sealed, on_progress=show, stopping=stopping)
    if summary is None:
        say(GOES_ON, err=True)
        raise typer.Exit(INTERRUPTED)
    _report(summary, json=json)
    if summary.rejected_items > max_rejected_share * summary.items:
        raise LimitError(
            f"{summary.rejected_items} of {counted(summary.items, 'files')} rejected, more than --max-rejected-share "
            f"{max_rejected_share:g}; {Path(summary.out, 'rejected.csv')} says why, all results are written"
        )
    if summary.rejected:
        raise typer.Exit(SOME_REJECTED)


def _report(summary: Summary, *, json: bool) -> None:
    from apps.imaging.writers.summary import encode_summary

    if json:
        say(encode_summary(summary).decode().rstrip("\n"))
        return
    decisions = ", ".join(f"{count} {printable(label)}" for label, count in summary.decisions.items())
    say(
        f"{counted(summary.images, 'images')} from {counted(summary.items, 'files')}: {decisions}; "
        f"{summary.rejected} rejected"
    )
    for reason, count in summary.reasons.items():
        say(f"  {count} {reason}")
    if summary.dropped_items:
        more = ", ..." if summary.dropped_items > len(summary.dropped) else ""
        names = ", ".join(map(printable, summary.dropped)) + more
        say(f"dropped: {counted(summary.dropped_items, 'files')} of earlier runs, no longer in the source ({names})")
    if summary.repeated_instances:
        say(
            f"marked: {counted(summary.repeated_instances, 'SOP Instance UIDs')} that more than one file has (column "
            "notes)"
        )
    say(printable(f"page: {Path(summary.out, 'index.html')}"))


@app.command(
    epilog="Example: featherweight imaging train --data chest_xray_224 --reader kermany --out runs/chest\n\n"
    "Then: featherweight optimize, with a recipe that names the folder."
)
def train(
    data: Annotated[str, typer.Option(help="Path of a data set, or the catalogue's name of a fetched one.")],
    out: Annotated[Path, typer.Option(help="Folder for the network, checkpoint and metrics, there when all is whole.")],
    reader: Annotated[str, typer.Option(help="Layout of the data: kermany, medmnist or folder.")] = "folder",
    network: Annotated[str, typer.Option(help="Architecture, for example resnet18.")] = "resnet18",
    side: Annotated[int, typer.Option(min=8, max=4096, help="Side of the network's input in pixels.")] = 224,
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    batch: Annotated[int, typer.Option(min=1)] = 32,
    learning_rate: Annotated[float, typer.Option(min=0)] = 1e-3,
    negative: Annotated[str, typer.Option(help="Name of the negative class.")] = "normal",
    positive: Annotated[str, typer.Option(help="Name of the positive class.")] = "pneumonia",
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Of the weights, the order and the augmentation.")
    ] = 0,
    augmentation: Annotated[
        float, typer.Option(min=0, max=2, help="Strength of the random views; 0 only mirrors.")
    ] = 1.0,
    start: Annotated[
        Path | None, typer.Option(help="Folder of an earlier `train` whose weights to start from, not from scratch.")
    ] = None,
    split_seed: Annotated[int, typer.Option(min=0, help="Of the split by patient into training and validation.")] = 0,
    report_test: Annotated[
        bool, typer.Option("--report-test", help="Also measure on the test set: once, for the last figure.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON on standard output.")] = False,
) -> None:
    """Train a network, choose calibration and threshold on validation data, write the folder that `optimize` takes."""
    import json as encoding

    from apps.imaging.train_command import run_training

    with telling_how_to_go_on("interrupted; the same command goes on after the last whole epoch"):
        summary = run_training(
            data=data,
            reader=reader,
            out=out,
            network=network,
            side=side,
            epochs=epochs,
            batch=batch,
            learning_rate=learning_rate,
            labels=(negative, positive),
            seed=seed,
            split_seed=split_seed,
            report_test=report_test,
            augmentation=augmentation,
            start=start,
        )
    if json:
        say(encoding.dumps(summary, indent=2))
        return
    for name in ("validation", "test"):
        if name in summary:
            figures = ", ".join(f"{key} {value:.4g}" for key, value in summary[name].items())
            say(f"{name}: {figures}")
    say(f"network: {out}")


@app.command(
    epilog="Example: featherweight imaging synthesize runs/images --count 500   "
    "Then: featherweight imaging train --data runs/images --network compact --side 96 --out runs/network"
)
def synthesize(
    out: Annotated[Path, typer.Argument(help="Folder for the images; made if absent.")],
    count: Annotated[int, typer.Option(min=1, help="Images, one patient each or a few.")] = 500,
    side: Annotated[int, typer.Option(min=64, max=4096, help="Side of the images in pixels.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
) -> None:
    """Draw chest radiographs with a known truth and write them as DICOM files with a labels.csv.

    They show nobody and teach nothing about patients: they are for trying things out where no data set is at hand.
    """
    from rich.progress import Progress

    from apps.imaging.synthetic import write_synthetic

    with Progress(console=open_console(stderr=True), transient=True) as progress:
        task = progress.add_task("drawing", total=count)
        labels = write_synthetic(
            out, count, seed, side=side, on_case=lambda done, _: progress.update(task, completed=done)
        )
    say(f"{counted(count, 'images')}: {labels}")
