"""The commands `featherweight fraud ...`: parse, call, print, exit code."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from core.errors import LimitError
from core.files import check_creatable, check_folder, check_readable
from core.signals import asking_on_hangup, stopping_on_signals
from core.terminal import counted, log_to_stderr, open_console, printable, say

SOME_REJECTED = 3
REFERENCE_MODEL = "card-fraud"

EPILOG = """Score a file: featherweight fraud score --input june.jsonl --output decisions.jsonl

Serve over REST: featherweight fraud serve --state histories

Score a stream: featherweight fraud stream --bootstrap localhost:9092 --create-topics

**Exit codes**: 0 done, or asked to end; 2 wrong usage or missing input; 3 done, but some rows were rejected; 4 done, \
but more than `--max-rejected-share` of them; 5 the model cannot be trusted; 6 the output could not be written; \
130 interrupted."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Score card transactions for fraud: in files, over REST, from Kafka; train a model.",
    epilog=EPILOG,
)


@app.callback()
def fraud() -> None:
    """Train, score files, score a Kafka stream, serve over REST."""


@app.command(
    epilog="Example: featherweight fraud stream --bootstrap localhost:9092 --create-topics --partitions 8\n\n"
    "SIGHUP, or another artifact in the folder of --model: it takes over between two batches. SIGTERM: the batch is "
    "finished and committed, then the process ends.\n\n"
    "**Exit codes**: 0 asked to end; 2 no broker or topics, or the model is none for a stream; 5 the model cannot be "
    "trusted; 6 decisions could not be committed (start again: nothing is lost)."
)
def stream(
    bootstrap: Annotated[str, typer.Option(help="HOST:PORT of a Kafka broker; several, separated by commas.")],
    model: Annotated[Path | None, typer.Option(help="Artifact folder; the bundled model if not given.")] = None,
    group: Annotated[
        str, typer.Option(help="Consumer group; its members share the partitions.")
    ] = "featherweight-fraud",
    topics_prefix: Annotated[str, typer.Option(help="Stands before the name of every topic.")] = "",
    create_topics: Annotated[
        bool, typer.Option("--create-topics", help="Create the topics that do not exist.")
    ] = False,
    partitions: Annotated[int, typer.Option(min=1, max=10_000, help="Of the topics that are created.")] = 4,
    instance_id: Annotated[
        str | None,
        typer.Option(help="Name of this member, the same over restarts: it comes back without a rebalance."),
    ] = None,
    security: Annotated[
        Path | None,
        typer.Option(help="TOML file with security_protocol, ssl_cafile, sasl_mechanism, ... for brokers that ask."),
    ] = None,
    max_histories: Annotated[
        int,
        typer.Option(min=1, help="Customers, and terminals, to remember; beyond it the least recent are forgotten."),
    ] = 1_000_000,
    backend: Annotated[str | None, typer.Option(help="Runtime; the artifact's fastest here if not given.")] = None,
    verify_parity: Annotated[
        bool, typer.Option("--verify-parity", help="Start only if the sealed inputs give the sealed decisions here.")
    ] = False,
) -> None:
    """Score a Kafka stream: `transactions` and `labels` in, `decisions` and `alerts` out, exactly once."""
    if security is not None:
        check_readable(security, "--security")
    from apps.fraud import kafka
    from apps.fraud.kafka_clients import read_security
    from apps.fraud.live import LiveModel
    from core.bundled import data_directory

    log_to_stderr()
    credentials = read_security(security) if security else {}
    member = kafka.Member(bootstrap, group, topics_prefix, instance_id, credentials, max_histories)
    live = LiveModel(model or data_directory() / "models" / REFERENCE_MODEL, backend, verify_parity=verify_parity)
    try:
        if create_topics:
            made = kafka.create_topics(member, partitions, partial(say, err=True))
            say(f"topics created: {', '.join(made) or 'none'}", err=True)
        with stopping_on_signals() as stopping, asking_on_hangup(live.ask):
            processed = kafka.run_stream(member, live, stopping=stopping, say=partial(say, err=True))
        say(f"{counted(processed, 'messages')} processed and committed", err=True)
    finally:
        live.close()


@app.command(
    epilog="Example: featherweight fraud score --input june.jsonl --output decisions.parquet\n\n"
    "In a pipe: cat june.jsonl | featherweight fraud score --input - --output - > decisions.jsonl\n\n"
    "Day after day: featherweight fraud score --input monday.jsonl --labels labels.jsonl --output monday.out.jsonl "
    "--state histories\n\n"
    'A line in: {"transaction_id": "1", "customer_id": "c", "terminal_id": "t", "time_ms": 1522540831000, '
    '"amount": 57.16}. A label: the same without amount and with "is_fraud". CSV: the first line names the columns. '
    "Fields and columns that are not known are ignored and counted.\n\n"
    "**Exit codes**: 0 all scored; 2 the input is missing, or holds no transactions (see --allow-empty); 3 done, but "
    "some rows were rejected (OUTPUT.rejected.jsonl says why); 4 done, but more than --max-rejected-share of the rows "
    "were rejected; 5 the model cannot be trusted; 6 the output could not be written; "
    "130 interrupted (nothing was written).\n\n"
    "**Times.** A file may be in any order: it is put in the order of time first, and the decisions are in the file's. "
    "A pipe is decided as it comes and may run backwards by a day at most. Rows dated before the year 2000, "
    "ahead of the clock, or far beyond the others of their file are rejected."
)
def score(
    source: Annotated[
        str,
        typer.Option("--input", help="Transactions: JSON lines, CSV, Parquet, or - for lines on standard input."),
    ],
    output: Annotated[
        str, typer.Option(help="Decisions: Parquet where it ends in .parquet, JSON lines else, - for standard output.")
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="What became of transactions, in the same forms; each counts from the model's delay (7 days) after "
            "its own, and of several of a transaction the last one."
        ),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Artifact folder; the bundled model if not given.")] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder with the histories; made if absent, continued by the next run.")
    ] = None,
    max_histories: Annotated[
        int,
        typer.Option(min=1, help="Customers, and terminals, to remember; beyond it the least recent are forgotten."),
    ] = 1_000_000,
    backend: Annotated[str | None, typer.Option(help="Runtime; the artifact's fastest here if not given.")] = None,
    verify_parity: Annotated[
        bool, typer.Option("--verify-parity", help="Start only if the sealed inputs give the sealed decisions here.")
    ] = False,
    allow_empty: Annotated[
        bool,
        typer.Option(
            "--allow-empty", help="An input without rows is a day without transactions: code 0, no decisions."
        ),
    ] = False,
    max_rejected_share: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Code 4 where a larger share of transactions, or of labels, is rejected; 1 allows all."
        ),
    ] = 1.0,
) -> None:
    """Score the transactions of a file in the order of time; no server is needed."""
    # Before anything is imported that may first have to be compiled.
    for path, option in ((_path(source), "--input"), (labels, "--labels")):
        if path is not None:
            check_readable(path, option)
    if _path(output) is not None:
        check_creatable(Path(output))
    if state is not None:
        check_folder(state)
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from apps.fraud.score_command import Job, check_output, render_summary, score_file
    from apps.fraud.scoring import open_scorer
    from core.bundled import data_directory

    job = Job(_path(source), _path(output), labels, state, max_histories, allow_empty)
    check_output(job)
    folder = model or data_directory() / "models" / REFERENCE_MODEL
    scorer = open_scorer(folder, backend=backend, verify_parity=verify_parity)
    columns = SpinnerColumn(), TextColumn("scoring"), TextColumn("{task.completed:,} transactions"), TimeElapsedColumn()
    console = open_console(stderr=True)
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("score", total=None)
            summary = score_file(job, scorer, on_progress=lambda done: bar.update(task, completed=done))
    finally:
        scorer.close()
    say(render_summary(summary), err=True)
    for name, tally in (("transactions", summary.transaction_rows), ("labels", summary.label_rows)):
        if tally.rejected > max_rejected_share * tally.rows:
            raise LimitError(
                f"{tally.rejected:,} of {counted(tally.rows, name)} rejected, more than --max-rejected-share "
                f"{max_rejected_share:g}; all decisions are written"
            )
    if summary.rejected:
        raise typer.Exit(SOME_REJECTED)


def _path(word: str) -> Path | None:
    """None for `-`."""
    return None if word == "-" else Path(word)


@app.command(
    epilog="Example: featherweight fraud serve --state /var/lib/featherweight --api-keys keys.sha256\n\n"
    "Then: curl -H 'Content-Type: application/json' http://127.0.0.1:8000/v1/score -d "
    '\'{"transaction_id": "1", "customer_id": "c", "terminal_id": "t", "time_ms": 1522540831000, "amount": 57.16}\'\n\n'
    'A key: KEY=$(openssl rand -hex 32); printf %s "$KEY" | sha256sum >> keys.sha256; clients send the header '
    "Authorization: Bearer $KEY.\n\n"
    "SIGHUP, or another artifact in the folder of --model: it takes over between two requests; SIGHUP reads the keys "
    "again too. SIGTERM: requests under way are answered, the state is written, then the process ends.\n\n"
    "**Exit codes**: 0 asked to end; 2 the port is in use, or others could ask without a key; 5 the model cannot be "
    "trusted; 6 the state cannot be written."
)
def serve(
    model: Annotated[Path | None, typer.Option(help="Artifact folder; the bundled model if not given.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    state: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps the histories over restarts and kills; in memory only if not given."),
    ] = None,
    api_keys: Annotated[Path | None, typer.Option(help="File with the SHA-256 digest of each key, one a line.")] = None,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Let other machines ask without a key.")
    ] = False,
    deadline_ms: Annotated[
        float | None,
        typer.Option(min=0.001, max=60_000, help="Of a request without X-Deadline-Ms; later, the policy's fallback."),
    ] = None,
    connections: Annotated[
        int, typer.Option(min=1, help="That ask for decisions at once; more are answered 503.")
    ] = 512,
    max_histories: Annotated[
        int,
        typer.Option(min=1, help="Customers, and terminals, to remember; beyond it the least recent are forgotten."),
    ] = 1_000_000,
    backend: Annotated[str | None, typer.Option(help="Runtime; the artifact's fastest here if not given.")] = None,
    verify_parity: Annotated[
        bool, typer.Option("--verify-parity", help="Start only if the sealed inputs give the sealed decisions here.")
    ] = False,
) -> None:
    """Serve over REST: POST /v1/score, /v1/score/batch, /v1/labels; GET /healthz, /readyz, /metrics, /openapi.json."""
    if state is not None:
        check_folder(state)
    if api_keys is not None:
        check_readable(api_keys, "--api-keys")
    from apps.fraud.http.server import Settings
    from apps.fraud.http.server import serve as run
    from core.bundled import data_directory

    log_to_stderr()
    settings = Settings(
        model=model or data_directory() / "models" / REFERENCE_MODEL,
        host=host,
        port=port,
        state=state,
        keys=api_keys,
        allow_anonymous=allow_anonymous,
        deadline_ms=deadline_ms,
        max_histories=max_histories,
        connections=connections,
        backend=backend,
        verify_parity=verify_parity,
    )
    kept = f"histories kept in {state}" if state else "histories in memory only, --state keeps them"
    run(
        settings,
        lambda address, served: say(printable(f"{served.live.scorer.model} serves at {address} ({kept})"), err=True),
    )


@app.command(
    epilog="Example: featherweight fraud synthesize runs/cards --customers 5000 --terminals 10000 --days 60\n\n"
    "**Exit codes**: 0 done; 2 wrong usage; 6 the files could not be written."
)
def synthesize(
    out: Annotated[Path, typer.Argument(help="Folder for transactions and labels; made if absent.")],
    customers: Annotated[int, typer.Option(min=1, max=10_000_000, help="Each makes up to 4 transactions a day.")] = 500,
    terminals: Annotated[int, typer.Option(min=1, max=1_000_000, help="Two more are compromised every day.")] = 1000,
    days: Annotated[int, typer.Option(min=1, max=10_000, help="From 2018-04-01 on.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="JSON lines instead of Parquet.")] = False,
) -> None:
    """Draw transactions and their labels as the Fraud Detection Handbook describes its simulator."""
    from rich.progress import Progress

    from apps.fraud.synthetic import write_synthetic

    form: Literal["jsonl", "parquet"] = "jsonl" if jsonl else "parquet"
    with Progress(console=open_console(stderr=True), transient=True) as progress:
        task = progress.add_task("drawing days", total=days)
        written = write_synthetic(
            out, customers, terminals, days, seed, form=form, on_day=lambda done: progress.update(task, completed=done)
        )
    say(
        f"{counted(written.transactions, 'transactions')}, {written.frauds:,} of them fraud: "
        f"{written.transactions_path}; "
        f"labels: {written.labels_path}"
    )


@app.command(
    epilog="Examples: featherweight fraud synthesize runs/cards --customers 5000 --terminals 10000 --days 90\n\n"
    "featherweight fraud train --data runs/cards --out runs/fraud\n\n"
    "featherweight fraud train --data fraud_handbook --reader handbook --until 2018-08-14 --out runs/handbook\n\n"
    "Then: featherweight optimize, with a recipe that names the folder.\n\n"
    "**Exit codes**: 0 done; 2 no such data, or it is not what it should be; 6 the folder could not be written."
)
def train(
    data: Annotated[str, typer.Option(help="Path of a data set, or the catalogue's name of a fetched one.")],
    out: Annotated[Path, typer.Option(help="Folder for the model and its metrics; made if absent.")],
    reader: Annotated[
        str,
        typer.Option(
            help="Form of the data: records (a folder with transactions and labels, each as .jsonl, .csv or .parquet), "
            "handbook or ulb."
        ),
    ] = "records",
    model: Annotated[
        str, typer.Option(help="xgboost, lightgbm, forest, hist-gradient-boosting, logistic or network.")
    ] = "lightgbm",
    train_days: Annotated[int, typer.Option(min=1, help="Days to fit the model on.")] = 7,
    delay_days: Annotated[
        int, typer.Option(min=0, max=60, help="Days until a transaction's label is known; no part uses them.")
    ] = 7,
    validation_days: Annotated[int, typer.Option(min=1, help="Days to calibrate and choose thresholds on.")] = 7,
    test_days: Annotated[int, typer.Option(min=1, help="Days kept for the last figure.")] = 7,
    until: Annotated[str, typer.Option(help="Last test day, as 2018-08-14; the data's last whole day if empty.")] = "",
    alerts_a_day: Annotated[
        float,
        typer.Option(
            min=0.01,
            help="Alerts a day that people can review, of cards not yet known as compromised: the review threshold.",
        ),
    ] = 100.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same model.")] = 0,
    report_test: Annotated[
        bool, typer.Option("--report-test", help="Also measure on the test days: once, for the last figure.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON on standard output.")] = False,
) -> None:
    """Train a model on labelled transactions, calibrate it on later days, write the folder that `optimize` takes.

    Counted back from the last day: test days, days whose labels are not known yet, validation days, such days again,
    training days. What came before fills the histories. The ULB cards, which have no histories, are split 70/10/20.
    """
    import json as encoding

    from apps.fraud.train_command import run_training
    from apps.fraud.training import Layout

    layout = Layout(
        train_days=train_days,
        delay_days=delay_days,
        validation_days=validation_days,
        test_days=test_days,
        until=until,
    )
    summary = run_training(
        data=data,
        reader=reader,
        out=out,
        model=model,
        layout=layout,
        alerts_a_day=alerts_a_day,
        seed=seed,
        report_test=report_test,
    )
    if json:
        say(encoding.dumps(summary, indent=2))
        return
    for name in ("model", "train", "validation", "test"):
        if name in summary:
            figures = (
                f"{key} {value if isinstance(value, str) else f'{value:.5g}'}" for key, value in summary[name].items()
            )
            say(f"{name}: {', '.join(figures)}")
    say(f"written: {out}")


def warm_up() -> None:
    """For `featherweight warm-up`, see `core.warming`."""
    from apps.fraud.warming import compile_all

    compile_all()
