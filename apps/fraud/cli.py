"""The commands `featherweight fraud ...`: parse, call, print, exit code."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from featherweight.core.errors import LimitError
from featherweight.core.files import check_creatable, check_folder, check_readable
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
from featherweight.core.signals import asking_on_hangup, stopping_on_signals
from featherweight.core.terminal import counted, log_to_stderr, printable, say, say_figures

if TYPE_CHECKING:
    from featherweight.core.serving import ModelSource

SOME_REJECTED = 3
REFERENCE_MODEL = "card-fraud"

EPILOG = """Score a file: featherweight fraud score --input june.jsonl --output decisions.jsonl

Serve over REST: featherweight fraud serve --state-dir histories

Score a stream: featherweight fraud stream --bootstrap-servers localhost:9092 --create-topics

**Exit codes**: 0 done, or asked to end; 2 wrong usage or missing input; 3 done, but some rows were rejected; 4 done, \
but more than `--max-rejected-share` of them; 5 the model cannot be trusted; 6 the output could not be written; \
130 interrupted."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Score card transactions for fraud: in files, over REST, from Kafka; train a model.",
    epilog=EPILOG,
)


MaxHistories = Annotated[
    int,
    typer.Option(
        "--max-histories",
        min=1,
        help="Customers, and terminals, to remember. When there are more, the least recent are forgotten.",
    ),
]


@app.callback()
def fraud() -> None:
    """Score card transactions for fraud: in files, over REST, from Kafka; train a model."""


@app.command(
    cls=Command,
    epilog="Example: featherweight fraud stream --bootstrap-servers localhost:9092 --create-topics --partitions 8\n\n"
    "SIGHUP, or another artifact in the folder of --model: it takes over between two batches. SIGTERM: the batch is "
    "finished and committed, then the process ends.\n\n"
    "**Exit codes**: 0 asked to end; 2 no broker or topics, or the model is not for a stream; 5 the model cannot be "
    "trusted; 6 decisions could not be committed (start again: nothing is lost).",
)
def stream(
    bootstrap_servers: Annotated[
        str, typer.Option(help="Kafka brokers to ask first, as HOST:PORT, separated by commas.")
    ],
    model: Model = None,
    group: Annotated[
        str, typer.Option(help="Consumer group. Its members share the partitions.")
    ] = "featherweight-fraud",
    topic_prefix: Annotated[str, typer.Option(help="Text that stands before the name of every topic.")] = "",
    create_topics: Annotated[
        bool, typer.Option("--create-topics", help="Create the topics that do not exist.")
    ] = False,
    partitions: Annotated[int, typer.Option(min=1, max=10_000, help="Partitions of each topic that is created.")] = 4,
    group_instance_id: Annotated[
        str | None,
        typer.Option(help="Name of this member. With the same name it comes back after a restart without a rebalance."),
    ] = None,
    client_config: Annotated[
        Path | None,
        typer.Option(help="TOML file with the client's settings: security_protocol, ssl_cafile, sasl_mechanism, ..."),
    ] = None,
    max_histories: MaxHistories = 1_000_000,
    backend: Backend = None,
    verify_decisions: VerifyDecisions = False,
) -> None:
    """Score a Kafka stream: `transactions` and `labels` in, `decisions` and `alerts` out, exactly once."""
    if client_config is not None:
        check_readable(client_config, "--client-config")
    from featherweight.apps.fraud.decision.live import LiveModel
    from featherweight.apps.fraud.kafka import member as kafka
    from featherweight.apps.fraud.kafka.clients import read_security

    log_to_stderr()
    credentials = read_security(client_config) if client_config else {}
    member = kafka.Member(bootstrap_servers, group, topic_prefix, group_instance_id, credentials, max_histories)
    live = LiveModel(_source(model, backend, verify_decisions))
    try:
        if create_topics:
            made = kafka.create_topics(member, partitions, partial(say, err=True))
            say(f"topics created: {', '.join(made) or 'none'}", err=True)
        with stopping_on_signals() as stopping, asking_on_hangup(live.request_reload):
            processed = kafka.run_stream(member, live, stopping=stopping, say=partial(say, err=True))
        say(f"{counted(processed, 'messages')} processed and committed", err=True)
    finally:
        live.close()


@app.command(
    cls=Command,
    epilog="Example: featherweight fraud score --input june.jsonl --output decisions.parquet\n\n"
    "In a pipe: cat june.jsonl | featherweight fraud score --input - --output - > decisions.jsonl\n\n"
    "Day after day: featherweight fraud score --input monday.jsonl --labels labels.jsonl --output monday.out.jsonl "
    "--state-dir histories\n\n"
    'A line in: {"transaction_id": "1", "customer_id": "c", "terminal_id": "t", "time_ms": 1522540831000, '
    '"amount": 57.16}. A label: the same without amount and with "is_fraud". CSV: the first line names the columns. '
    "Fields and columns that are not known are ignored and counted.\n\n"
    "**Exit codes**: 0 all scored; 2 the input is missing, or holds no transactions (see --allow-empty); 3 done, but "
    "some rows were rejected (OUTPUT.rejected.jsonl says why); 4 done, but more than --max-rejected-share of the rows "
    "were rejected; 5 the model cannot be trusted; 6 the output could not be written; "
    "130 interrupted (nothing was written).\n\n"
    "**Times.** A file may be in any order: it is put in the order of time first, and the decisions are in the file's. "
    "A pipe is decided as it comes and may run backwards by a day at most. Rows dated before the year 2000, "
    "ahead of the clock, or far beyond the others of their file are rejected.",
)
def score(
    source: Annotated[
        str,
        typer.Option(
            "--input", help="Transactions as JSON lines, CSV or Parquet, or - for JSON lines on standard input."
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            help="File for the decisions: Parquet if its name ends in .parquet, else JSON lines; - is standard output."
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Labels of transactions, in the same forms. A label counts once the model's delay (7 days) has passed "
            "since its transaction; of several for one transaction the last one counts."
        ),
    ] = None,
    model: Model = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with the histories. It is made if absent, and the next run continues it."),
    ] = None,
    max_histories: MaxHistories = 1_000_000,
    backend: Backend = None,
    verify_decisions: VerifyDecisions = False,
    allow_empty: AllowEmpty = False,
    max_rejected_share: MaxRejectedShare = 1.0,
) -> None:
    """Score the transactions of a file in the order of time; no server is needed."""
    # Before anything is imported that may first have to be compiled.
    for path, option in ((_path(source), "--input"), (labels, "--labels")):
        if path is not None:
            check_readable(path, option)
    if _path(output) is not None:
        check_creatable(Path(output))
    if state_dir is not None:
        check_folder(state_dir)
    from featherweight.apps.fraud.decision.scorer import open_scorer
    from featherweight.apps.fraud.files.job import Job, check_output, score_file
    from featherweight.apps.fraud.files.summary import render_summary
    from featherweight.core.progress import progress_bar

    job = Job(_path(source), _path(output), labels, state_dir, max_histories, allow_empty)
    check_output(job)
    scorer = open_scorer(_source(model, backend, verify_decisions))
    try:
        with progress_bar("transactions") as bar:
            summary = score_file(job, scorer, on_progress=lambda done: bar("scoring", done))
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


def _source(model: Path | None, backend: str | None, verify_decisions: bool) -> ModelSource:
    from featherweight.core.bundled import bundled_model
    from featherweight.core.serving import ModelSource

    return ModelSource(model or bundled_model(REFERENCE_MODEL), backend, verify_decisions=verify_decisions)


def _path(word: str) -> Path | None:
    """None for `-`."""
    return None if word == "-" else Path(word)


@app.command(
    cls=Command,
    epilog="Example: featherweight fraud serve --state-dir /var/lib/featherweight --api-keys keys.sha256\n\n"
    "Then: curl -H 'Content-Type: application/json' http://127.0.0.1:8000/v1/score -d "
    '\'{"transaction_id": "1", "customer_id": "c", "terminal_id": "t", "time_ms": 1522540831000, "amount": 57.16}\'\n\n'
    'A key: KEY=$(openssl rand -hex 32); printf %s "$KEY" | sha256sum >> keys.sha256; clients send the header '
    "Authorization: Bearer $KEY.\n\n"
    "SIGHUP, or another artifact in the folder of --model: it takes over between two requests; SIGHUP reads the keys "
    "again too. SIGTERM: requests under way are answered, the state is written, then the process ends.\n\n"
    "**Exit codes**: 0 asked to end; 2 the port is in use, or others could ask without a key; 5 the model cannot be "
    "trusted; 6 the state cannot be written.",
)
def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps the histories over restarts and crashes; they are in memory only if not given."
        ),
    ] = None,
    api_keys: Annotated[
        Path | None, typer.Option(help="File with the SHA-256 digest of each key, one on each line.")
    ] = None,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Let other machines ask without a key.")
    ] = False,
    deadline_ms: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=60_000,
            help="Milliseconds that a request without X-Deadline-Ms may take; later ones get the policy's fallback.",
        ),
    ] = None,
    max_connections: Annotated[
        int, typer.Option(min=1, help="Connections that may ask for decisions at once. Others are answered 503.")
    ] = 512,
    max_histories: MaxHistories = 1_000_000,
    backend: Backend = None,
    verify_decisions: VerifyDecisions = False,
) -> None:
    """Serve decisions over REST.

    POST /v1/score, /v1/score/batch, /v1/labels; GET /healthz, /readyz, /metrics, /openapi.json.
    """
    if state_dir is not None:
        check_folder(state_dir)
    if api_keys is not None:
        check_readable(api_keys, "--api-keys")
    from featherweight.apps.fraud.http.server import ServerSettings
    from featherweight.apps.fraud.http.server import serve as run

    log_to_stderr()
    settings = ServerSettings(
        model=_source(model, backend, verify_decisions),
        host=host,
        port=port,
        state=state_dir,
        keys=api_keys,
        allow_anonymous=allow_anonymous,
        deadline_ms=deadline_ms,
        max_histories=max_histories,
        connections=max_connections,
    )
    kept = f"histories kept in {state_dir}" if state_dir else "histories in memory only, --state-dir keeps them"
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
    customers: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="Customers; each makes up to 4 transactions a day.")
    ] = 500,
    terminals: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Terminals; two more are compromised every day.")
    ] = 1000,
    days: Annotated[int, typer.Option(min=1, max=10_000, help="Days of transactions, from 2018-04-01 on.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Random seed. The same seed gives the same bytes.")] = 0,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Write JSON lines instead of Parquet.")] = False,
) -> None:
    """Draw transactions and their labels as the Fraud Detection Handbook describes its simulator."""
    from featherweight.apps.fraud.synthetic import write_synthetic
    from featherweight.core.progress import progress_bar

    form: Literal["jsonl", "parquet"] = "jsonl" if jsonl else "parquet"
    with progress_bar("days") as bar:
        written = write_synthetic(
            out, customers, terminals, days, seed, form=form, on_day=lambda done: bar("drawing days", done, days)
        )
    say(
        f"{counted(written.transactions, 'transactions')}, {written.frauds:,} of them fraud: "
        f"{written.transactions_path}; labels: {written.labels_path}"
    )


@app.command(
    cls=Command,
    epilog="Examples: featherweight fraud synthesize runs/cards --customers 5000 --terminals 10000 --days 90\n\n"
    "featherweight fraud train --data runs/cards --out runs/fraud\n\n"
    "featherweight fraud train --data fraud_handbook --format handbook --until 2018-08-14 --out runs/handbook\n\n"
    "Then: featherweight optimize, with a recipe that names the folder.\n\n"
    "**Exit codes**: 0 done; 2 no such data, or it is not what it should be; 6 the folder could not be written.",
)
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the model and its metrics; made if absent.")],
    data_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="Form of the data: records (a folder with transactions and labels, each as .jsonl, .csv or .parquet), "
            "handbook or ulb.",
        ),
    ] = "records",
    model: Annotated[
        str, typer.Option(help="Kind of model: xgboost, lightgbm, forest, hist-gradient-boosting, logistic or network.")
    ] = "lightgbm",
    train_days: Annotated[int, typer.Option(min=1, help="Days to fit the model on.")] = 7,
    delay_days: Annotated[
        int,
        typer.Option(
            min=0,
            max=60,
            help="Days until a transaction's label is known. They lie between the parts, and none uses them.",
        ),
    ] = 7,
    validation_days: Annotated[int, typer.Option(min=1, help="Days to calibrate on and to choose thresholds on.")] = 7,
    test_days: Annotated[int, typer.Option(min=1, help="Days kept for the last figure.")] = 7,
    until: Annotated[
        str, typer.Option(help="Last test day, such as 2018-08-14; the data's last whole day if not given.")
    ] = "",
    alerts_per_day: Annotated[
        float,
        typer.Option(
            min=0.01,
            help="Alerts that people can review in a day, for cards not yet known as compromised. This sets the review "
            "threshold.",
        ),
    ] = 100.0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed. The same seed gives the same model.")] = 0,
    report_test: ReportTest = False,
    json: AsJson = False,
) -> None:
    """Train a model on labelled transactions, calibrate it on later days, and write the folder that `optimize` takes.

    Counted back from the last day: test days, days whose labels are not known yet, validation days, such days again,
    training days. What came before fills the histories. The ULB cards, which have no histories, are split 70/10/20.
    """
    from featherweight.apps.fraud.training.command import run_training
    from featherweight.apps.fraud.training.description import SplitDays

    layout = SplitDays(
        train_days=train_days, delay_days=delay_days, validation_days=validation_days, test_days=test_days, until=until
    )
    summary = run_training(
        data=data,
        reader=data_format,
        out=out,
        model=model,
        layout=layout,
        alerts_per_day=alerts_per_day,
        seed=seed,
        report_test=report_test,
    )
    say_figures(summary, f"written: {out}", as_json=json, digits=5)


def warm_up() -> None:
    """For `featherweight warm-up`, see `core.warming`."""
    from featherweight.apps.fraud.warming import compile_all

    compile_all()
