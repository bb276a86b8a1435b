"""`featherweight imaging`: classify images with a sealed model, train a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featherweight.core.errors import LimitError
from featherweight.core.options import (
    AllowEmpty,
    AsJson,
    Backend,
    Command,
    Data,
    MaxRejectedShare,
    Model,
    ReportTest,
    VerifyDecisions,
)
from featherweight.core.signals import stopping_on_signals, telling_how_to_go_on
from featherweight.core.terminal import counted, printable, say, say_figures

if TYPE_CHECKING:
    from featherweight.apps.imaging.writers.summary import Summary

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
INTERRUPTED = 130
SOME_REJECTED = 3
GOES_ON = "interrupted; what is classified is kept, and the same command goes on"
REFERENCE_MODEL = "chest-xray"


@app.callback()
def imaging() -> None:
    """Classify medical images with a sealed model; train one."""


@app.command(
    cls=Command,
    epilog="Example: featherweight imaging classify scans/ --out results/\n\n"
    "**Exit codes**: 0 all classified; 2 nothing to do as asked (no files: see --allow-empty); 3 done, but some files "
    "were rejected (rejected.csv says why); 4 done, but more than --max-rejected-share of the files were rejected; "
    "5 the model cannot be trusted, or its decisions differ on this host (--verify-decisions); 6 the results could not "
    "be written; 7 the journal in --out is damaged (--restart begins again); "
    "130 interrupted (the same command goes on).",
)
def classify(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder, which is searched recursively, a file, or a .csv or .parquet list with a column `path`."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the results, the page and the journal; made if absent. It must not be the images' folder."
        ),
    ],
    model: Model = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of decoding processes; one for each usable core if not given.")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads that run the model. One is best where decoding needs the other cores.")
    ] = 1,
    batch_size: Annotated[int, typer.Option(min=1, max=256, help="Images that the model classifies in one run.")] = 16,
    backend: Backend = None,
    verify_decisions: VerifyDecisions = False,
    decode_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds after which a file that is not decoded is rejected.")
    ] = 60.0,
    thumbnails: Annotated[
        bool, typer.Option(help="Show small pictures on the page. Without them no pixel is stored anywhere.")
    ] = True,
    retry_rejected: Annotated[
        bool, typer.Option("--retry-rejected", help="Try files that an earlier run rejected once more.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Discard what an earlier run left in --out.")] = False,
    allow_empty: AllowEmpty = False,
    max_rejected_share: MaxRejectedShare = 1.0,
    json: AsJson = False,
) -> None:
    """Classify images; started again after any interruption, it goes on where it was.

    Writes results.parquet, results.csv, rejected.parquet, rejected.csv, summary.json and index.html to --out. Files
    that changed since an earlier run are classified again, rows of files that are gone are dropped. Of a DICOM file,
    nothing but UIDs is written.
    """

    from featherweight.apps.imaging.batch.job import Job, run_job
    from featherweight.apps.imaging.batch.progress import LINE_EVERY_S, show_job
    from featherweight.apps.imaging.classify import read_model
    from featherweight.core.bundled import bundled_model
    from featherweight.core.hardware import count_usable_cores
    from featherweight.core.progress import progress_bar
    from featherweight.core.serving import ModelSource

    job = Job(
        source=source,
        out=out,
        workers=workers or count_usable_cores(),
        batch=batch_size,
        thumbnails=thumbnails,
        restart=restart,
        retry_rejected=retry_rejected,
        allow_empty=allow_empty,
        decode_timeout_s=decode_timeout,
    )
    with telling_how_to_go_on(GOES_ON):
        sealed = read_model(ModelSource(model or bundled_model(REFERENCE_MODEL), backend, threads, verify_decisions))
        with (
            stopping_on_signals() as stopping,
            progress_bar("files", times=False, lines_every_s=LINE_EVERY_S) as bar,
        ):
            summary = run_job(job, sealed, on_progress=show_job(bar), stopping=stopping)
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
    from featherweight.apps.imaging.writers.summary import encode_summary

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
    cls=Command,
    epilog="Example: featherweight imaging train --data chest_xray_224 --format kermany --out runs/chest\n\n"
    "Then: featherweight optimize, with a recipe that names the folder.",
)
def train(
    data: Data,
    out: Annotated[
        Path,
        typer.Option(help="Folder for the network, checkpoint and metrics. It appears when all of them are whole."),
    ],
    data_format: Annotated[
        str, typer.Option("--format", help="Layout of the data: kermany, medmnist or folder.")
    ] = "folder",
    network: Annotated[str, typer.Option(help="Architecture of the network, for example resnet18.")] = "resnet18",
    image_size: Annotated[
        int, typer.Option(min=8, max=4096, help="Width and height of the network's input in pixels.")
    ] = 224,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 12,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one training step.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=0, help="Largest learning rate of the schedule.")] = 1e-3,
    negative: Annotated[str, typer.Option(help="Name of the negative class.")] = "normal",
    positive: Annotated[str, typer.Option(help="Name of the positive class.")] = "pneumonia",
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Random seed for weights, shuffling and augmentation.")
    ] = 0,
    augmentation: Annotated[
        float, typer.Option(min=0, max=2, help="Strength of the random augmentation. At 0 images are only mirrored.")
    ] = 1.0,
    init_from: Annotated[
        Path | None, typer.Option(help="Folder that `imaging train` wrote earlier. Training starts from its weights.")
    ] = None,
    split_seed: Annotated[
        int, typer.Option(min=0, help="Random seed of the split by patient into training and validation.")
    ] = 0,
    report_test: ReportTest = False,
    json: AsJson = False,
) -> None:
    """Train a network, choose its calibration and threshold on validation data, and write the folder that `optimize`
    takes."""
    from featherweight.apps.imaging.training.command import run_training

    with telling_how_to_go_on("interrupted; the same command goes on after the last whole epoch"):
        summary = run_training(
            data=data,
            reader=data_format,
            out=out,
            network=network,
            side=image_size,
            epochs=epochs,
            batch=batch_size,
            learning_rate=learning_rate,
            labels=(negative, positive),
            seed=seed,
            split_seed=split_seed,
            report_test=report_test,
            augmentation=augmentation,
            start=init_from,
        )
    say_figures(summary, f"network: {out}", as_json=json)


@app.command(
    cls=Command,
    epilog="Example: featherweight imaging synthesize runs/images --count 500   "
    "Then: featherweight imaging train --data runs/images --network compact --image-size 96 --out runs/network",
)
def synthesize(
    out: Annotated[Path, typer.Argument(help="Folder for the images; made if absent.")],
    count: Annotated[int, typer.Option(min=1, help="Number of images. A patient has one or a few of them.")] = 500,
    image_size: Annotated[int, typer.Option(min=64, max=4096, help="Width and height of the images in pixels.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Random seed. The same seed gives the same bytes.")] = 0,
) -> None:
    """Draw chest radiographs with a known truth and write them as DICOM files with a labels.csv.

    They show nobody and teach nothing about patients: they are for trying things out where no data set is at hand.
    """
    from featherweight.apps.imaging.synthetic.dicom import write_synthetic
    from featherweight.core.progress import progress_bar

    with progress_bar("images") as bar:
        labels = write_synthetic(out, count, seed, side=image_size, on_case=lambda done, of: bar("drawing", done, of))
    say(f"{counted(count, 'images')}: {labels}")
