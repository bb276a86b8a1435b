"""Nothing is sent and nothing is left behind: every command under strace, with a home folder that was never used."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer

from featherweight.core.bundled import data_directory
from featherweight.core.cli import app
from featherweight.core.files import cache_directory
from tests.fraud.broker import start_broker
from tests.fraud.serving import wait_until_ready
from tests.small_programs import identity_file
from tests.tracing import STRACE, Trace, traced

pytestmark = [pytest.mark.skipif(STRACE is None, reason="strace is not installed"), pytest.mark.timeout(900)]

MODELS = data_directory() / "models"
RECIPE = """
version = 1
name = "tiny"
[source]
task = "imaging"
network = "{work}/network"
data = "{work}/images"
reader = "folder"
[[step]]
kind = "quantize"
calibration_samples = 16
[measure]
backends = ["openvino"]
repetitions = 3
"""
TRANSACTION = {"transaction_id": "1", "customer_id": "c", "terminal_id": "t", "time_ms": 1522540831000, "amount": 57.2}


@dataclass(frozen=True)
class Case:
    """A command as one would call it. outputs: what it may write, below the work folder, or below the current folder
    where it begins with "./"; codes: how it may end."""

    command: str
    arguments: str = ""
    outputs: tuple[str, ...] = ()
    codes: tuple[int, ...] = (0,)
    until: str = ""
    meanwhile: Callable[[str], None] = field(default=lambda line: None)

    @property
    def name(self) -> str:
        return f"{self.command} {self.arguments}"


def ask(line: str) -> None:
    """A transaction of the service that says where it serves."""
    found = re.search(r"serves at (\S+)", line)
    assert found is not None
    wait_until_ready(found[1])
    body, headers = json.dumps(TRANSACTION).encode(), {"Content-Type": "application/json"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(f"{found[1]}/v1/score", body, headers), timeout=30) as answer:  # noqa: S310
        assert answer.status == 200
    for page in ("metrics", "openapi.json"):
        opener.open(f"{found[1]}/{page}", timeout=30).close()


def write_compared(folder: Path) -> None:
    """Cases, a table of predictions and a program that gives its input back."""
    rows = [(place, place % 2, (place % 7) / 7) for place in range(60)]
    (folder / "cases.csv").write_text("id,y,x\n" + "".join(f"{one},{label},{x}\n" for one, label, x in rows))
    (folder / "old.csv").write_text("id,score\n" + "".join(f"{one},{x}\n" for one, _, x in rows))
    (folder / "model.onnx").write_bytes(identity_file(columns=1))


def write_own(folder: Path) -> None:
    """A model of somebody's own, and its cases."""
    import lightgbm
    import numpy as np

    rows = np.random.default_rng(0).normal(size=(900, 3))
    labels = (rows[:, 0] + rows[:, 1] > 0).astype(int)
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1}
    data = lightgbm.Dataset(rows, labels, feature_name=["a", "b", "c"])
    lightgbm.train(parameters, data, 5).save_model(folder / "model.txt")
    splits = ("train", "validation", "test")
    lines = [
        f"{a},{b},{c},{label},{splits[place % 3]}"
        for place, ((a, b, c), label) in enumerate(zip(rows, labels, strict=True))
    ]
    (folder / "own.csv").write_text("\n".join(["a,b,c,y,split", *lines]) + "\n")


LOOKING = [
    Case("", "--help"),
    Case("", "--version"),
    Case("hardware"),
    Case("data list"),
    Case("warm-up"),
    Case("recipe new", "imaging {work}/new.toml", ("new.toml",)),
    Case("recipe new", "fraud {work}/cards.toml", ("cards.toml",)),
    Case("data fetch", "pneumoniamnist --from {work} --to {work}/data", ("data",), (2,)),  # there is no copy
    Case("artifact show", f"{MODELS}/chest-xray"),
    Case(
        "compare",
        "{work}/old.csv {work}/model.onnx --data {work}/cases.csv --label y --features x --threshold 0.5 --limit "
        "auc_loss=0.9 --threshold-in-force 0.5 --out {work}/verdict",
        ("verdict", "test-uses.jsonl"),
    ),
    Case("artifact verify", f"{MODELS}/chest-xray"),
    Case("artifact verify", f"{MODELS}/card-fraud --json"),
    Case("artifact export", f"{MODELS}/chest-xray --target ort-mobile --out {{work}}/ort", ("ort",)),
    Case("artifact export", f"{MODELS}/chest-xray --target litert --out {{work}}/litert", ("litert",)),
    # 2: it is not installed.
    Case("artifact export", f"{MODELS}/chest-xray --target executorch --out {{work}}/pte", ("pte",), (0, 2)),
]
IMAGING = [
    Case("imaging synthesize", "{work}/images --count 60 --image-size 64", ("images",)),
    Case("imaging classify", "{work}/images --out {work}/a --backend onnxruntime --workers 1", ("a",), (3,)),
    Case("imaging classify", "{work}/images --out {work}/b --backend openvino --verify-decisions", ("b",), (3,)),
    Case(
        "imaging train",
        "--data {work}/images --out {work}/network --network compact --image-size 32 --epochs 1 --batch-size 16",
        ("network",),
    ),
    Case("evidence plan", "{work}/planned.toml --out {work}/plan.json", ("plan.json", "test-uses.jsonl")),
    Case("evidence enter-use", "{work}/planned.toml --uses 2 --when 2026 --words tuning", ("test-uses.jsonl",)),
    Case(
        "optimize",
        "{work}/recipe.toml --out {work}/model --force",
        ("model", "model-cases.html", "test-uses.jsonl", "./runs"),
    ),
    Case("evidence uses", "{work}/test-uses.jsonl --artifact {work}/model"),
]
FRAUD = [
    Case("fraud synthesize", "{work}/cards --customers 60 --terminals 80 --days 40 --jsonl", ("cards",)),
    Case(
        "fraud score",
        "--input {work}/cards/transactions.jsonl --labels {work}/cards/labels.jsonl --output {work}/decisions.parquet "
        "--state-dir {work}/score",
        ("decisions.parquet", "score"),
    ),
    Case(
        "fraud train",
        "--data {work}/cards --out {work}/fraud --train-days 5 --delay-days 3 --validation-days 5 --test-days 5 "
        "--alerts-per-day 3",
        ("fraud",),
    ),
    Case("fraud serve", "--port 0 --state-dir {work}/serve", ("serve",), until="serves at", meanwhile=ask),
    Case(
        "fraud stream",
        "--bootstrap-servers {broker} --create-topics --partitions 1 --topic-prefix silence. --group silence",
        until="restored",
    ),
]


CUSTOM = [
    Case(
        "optimize",
        "{work}/model.txt --data {work}/own.csv --label y --split split --steps int8 --limit auc_loss=0.5 --force "
        "--out {work}/own",
        ("own", "own-cases.html", "./runs"),
    ),
    Case("predict", "{work}/own --data {work}/own.csv --keep y --out {work}/scores.parquet", ("scores.parquet",)),
]


@dataclass(frozen=True)
class Place:
    home: Path
    work: Path
    tmp: Path

    def run(self, words: list[str], here: Path, **options: Any) -> Trace:
        with tempfile.TemporaryDirectory() as logs:
            return traced(words, home=self.home, tmp=self.tmp, cwd=here, logs=Path(logs), **options)

    def faults(self, trace: Trace, here: Path, outputs: tuple[str, ...] = ()) -> list[str]:
        """What it asked of other machines, changed outside its outputs, or left behind."""
        cache = self.home / ".cache" / "featherweight"
        own = [self.work / name for name in outputs if not name.startswith("./")]
        own += [here / name for name in outputs if name.startswith("./")]
        found = [f"asked: {call}" for call in trace.asked]
        for path in sorted(trace.changed):
            mine = any(path == one or one in path.parents for one in (*own, cache)) or path in cache.parents
            passing = not path.exists() and any(
                folder in path.parents
                for folder in (self.work, self.tmp, Path("/dev/shm"))  # noqa: S108
            )
            # What Python compiles when it imports a module for the first time; where pip installs, pip does so.
            python = "__pycache__" in (path.name, path.parent.name) and path.suffix in ("", ".pyc")
            python |= ".pyc." in path.name and not path.exists()
            # A setting of the process itself is kept nowhere: a child that tries a program is to be ended first.
            if not (mine or passing or python or path in (Path("/dev/null"), Path("/proc/self/oom_score_adj"))):
                found.append(f"changed: {path}")
        return found + [f"left: {path}" for path in self.tmp.rglob("*")]


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """What numba compiled for other tests is in the new cache, since it takes a minute. Its path is short:
    sockets are made in its folder for temporary files, and their paths have 107 bytes at most."""
    folder = tmp_path_factory.mktemp("p")
    made = Place(folder / "home", folder / "work", folder / "tmp")
    for one in (made.home, made.work, made.tmp):
        one.mkdir()
    if (kept := cache_directory() / "numba").is_dir():
        shutil.copytree(kept, made.home / ".cache" / "featherweight" / "numba")
    return made


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    started = start_broker()
    yield started.address
    started.remove()


def check(cases: list[Case], place: Place, broker: str = "") -> None:
    recipe = RECIPE.format(work=place.work)
    (place.work / "recipe.toml").write_text(recipe)
    (place.work / "planned.toml").write_text(f"{recipe}[limits]\nauc_loss = 0.5\n[reasons]\nauc_loss = 'a test'\n")
    write_compared(place.work)
    here = place.work.with_name("here")
    here.mkdir()
    faults = []
    for case in cases:
        words = f"{case.command} {case.arguments}".format(work=place.work, broker=broker).split()
        command = [sys.executable, "-c", "from featherweight.core.cli import main; main()", *words]
        trace = place.run(command, here, until=case.until, meanwhile=case.meanwhile)
        faults += [f"{case.name}: {fault}" for fault in place.faults(trace, here, case.outputs)]
        if trace.code not in case.codes:
            faults.append(f"{case.name}: ended with {trace.code}: {trace.said[-2000:]}")
    assert not faults, "\n".join(faults)


def test_commands_that_look(place: Place) -> None:
    check(LOOKING, place)


def test_images_from_drawn_to_classified_and_compressed(place: Place) -> None:
    check(IMAGING, place)


def test_transactions_from_drawn_to_served(place: Place, broker: str) -> None:
    check(FRAUD, place, broker)


def test_a_model_of_ones_own_from_file_to_scores(place: Place) -> None:
    write_own(place.work)
    check(CUSTOM, place)


def test_every_command_is_looked_at() -> None:
    covered = {case.command for case in (*LOOKING, *IMAGING, *FRAUD, *CUSTOM)} - {""}
    assert covered == set(_commands(typer.main.get_command(app), ""))


def _commands(command: Any, name: str) -> Iterator[str]:
    """The leaves of the tree of commands; a group that an app registers is loaded."""
    from featherweight.core.cli import _load_group

    if not hasattr(command, "commands"):
        yield name
        return
    lazy = getattr(command, "_lazy", {})
    for word, inner in command.commands.items():
        yield from _commands(_load_group(lazy[word]) if word in lazy else inner, f"{name} {word}".strip())


def test_what_it_would_see(place: Place) -> None:
    """A look-up, a connection and files of a program that does all of it."""
    program = (
        "import pathlib, socket, threading\n"
        "def ask():\n"
        "    try: socket.getaddrinfo('host.invalid', 443)\n"
        "    except OSError: pass\n"
        "thread = threading.Thread(target=ask); thread.start(); thread.join()\n"
        "socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 9))\n"
        "socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 9))\n"
        "(pathlib.Path.home() / 'id').write_text('7')\n"
        "pathlib.Path('here').mkdir()\n"
    )
    here = place.work
    faults = place.faults(place.run([sys.executable, "-c", program], here), here)
    assert any("192.0.2.1" in fault for fault in faults)
    assert any("htons(53)" in fault for fault in faults)
    assert {f"changed: {place.home / 'id'}", f"changed: {here / 'here'}"} <= set(faults)
    assert not any("127.0.0.1" in fault for fault in faults)


def test_whoever_uses_us_as_a_library(place: Place) -> None:
    program = (
        "import featherweight, onnxruntime, openvino, nncf\n"
        "from openvino.tools.ovc import telemetry\n"
        "telemetry.send_event('ov', 'import', 'again')\n"
        "nncf.telemetry.telemetry.send_event('a', 'b', 'c')\n"
    )
    trace = place.run([sys.executable, "-c", program], place.work)
    assert trace.code == 0, trace.said
    assert place.faults(trace, place.work) == []
