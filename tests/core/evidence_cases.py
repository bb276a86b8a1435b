"""A realistic comparison, made up: a classifier of 624 cases and its compressed form that is almost as good."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from featherweight.core.evidence.judge import judge
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.planted_trial import try_gate
from featherweight.core.evidence.predictions import Measured, Parity, ParityRun, Predictions
from featherweight.core.evidence.report import CandidateRecord, Comparison, Evidence, Search, summarize_latency
from featherweight.core.measure.energy import Energy, Provenance
from featherweight.core.measure.performance import Conditions, Latency, Memory, Size, Throughput

HOST = {"processor": "Example CPU @ 2.50GHz", "instruction sets": "avx2, avx512_vnni, amx_int8", "memory": "8.3 GB"}
LIMITS = Limits(
    auc_loss=0.005,
    sensitivity_loss=0.02,
    specificity_loss=0.04,
    flip_ratio_max=0.05,
    latency_ratio_min=10,
    size_ratio_min=12,
)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def predictions(noise: float, *, seed: int = 1, positives: int = 390, negatives: int = 234) -> Predictions:
    """Cases of a seed are the same for every noise, so that they are paired."""
    generator = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [positives, negatives])
    scores = generator.normal(size=len(labels)) * 1.6 + 4.4 * labels - 2.0
    scores = scores + noise * np.random.default_rng(seed + 1000).normal(size=len(labels))
    folders = ("NORMAL", "PNEUMONIA")
    ids = tuple(f"set{seed}/{folders[label]}/person{i}_{i * 7}.jpeg" for i, label in enumerate(labels))
    return Predictions(ids, labels, scores, 0.1, sigmoid(1.3 * scores))


def measured(
    name: str, found: Predictions, *, ms: float, size: int, precision: str = "fp32", runs: int = 300
) -> Measured:
    conditions = Conditions("onnxruntime" if precision == "int8" else "torch", precision, 1, "cpu", HOST)
    samples = ms * (1 + np.random.default_rng(len(name)).gamma(1.2, 0.03, size=runs))
    return Measured(
        name,
        found,
        Latency(samples, 1, conditions, ("10 untimed runs first",)),
        Throughput(int(2000 / ms * 1.1) * 8, 2.0, 8, conditions),
        Memory(60_000_000, 60_000_000 + 20 * size // 4, 1, conditions),
        Size(size, int(size * 0.92)),
    )


def baseline(split_seed: int) -> Measured:
    return measured("ResNet-18 fp32", predictions(0.0, seed=split_seed), ms=41.3, size=44_712_003)


def candidate(split_seed: int, noise: float = 0.12) -> Measured:
    found = predictions(noise, seed=split_seed)
    return measured("pruned 0.6, int8", found, ms=2.61, size=1_203_410, precision="int8")


def comparison(split: str, seed: int, noise: float = 0.12) -> Comparison:
    before, after = baseline(seed), candidate(seed, noise)
    return Comparison(split, before, after, judge(before, after, LIMITS, seed=0))


STEPS = (
    {
        "name": "prune",
        "settings": {"ratio": 0.6, "round_to": 16},
        "facts": {"parameters": {"before": 11_170_753, "after": 1_180_225}},
    },
    {"name": "recover", "settings": {"epochs": 6, "learning_rate": 1e-3}, "facts": {"loss": (0.31, 0.12, 0.08)}},
    {"name": "quantize", "settings": {"precision": "int8"}, "facts": {"calibration samples": 512, "per channel": True}},
)


@functools.cache
def evidence(noise: float = 0.12, *, with_test: bool = True, forced: bool = False) -> Evidence:
    validation = comparison("validation", 3, noise)
    fast = summarize_latency(validation.candidate.latency)
    worse = judge(baseline(3), candidate(3, noise=0.9), LIMITS, seed=0)
    return Evidence(
        title="Pneumonia on chest x-rays",
        created="2026-01-31T12:00:00Z",
        limits=LIMITS,
        validation=validation,
        test=comparison("test", 1, noise) if with_test else None,
        candidates=(
            CandidateRecord(
                "pruned 0.3, int8",
                {"prune.ratio": 0.3},
                STEPS,
                validation.checks,
                3_100_000,
                fast,
                0.985,
                reason="slower",
            ),
            CandidateRecord(
                "pruned 0.6, int8", {"prune.ratio": 0.6}, STEPS, validation.checks, 1_203_410, fast, 0.984, chosen=True
            ),
            CandidateRecord("pruned 0.8, int8", {"prune.ratio": 0.8}, STEPS, worse, 400_000, fast, 0.95),
            CandidateRecord(
                "pruned 0.9, int8", {"prune.ratio": 0.9}, STEPS, reason="could not be exported: no channels left"
            ),
        ),
        labels=("normal", "pneumonia"),
        host=HOST,
        versions={"featherweight": "0.1.0", "onnxruntime": "1.23.0"},
        facts={"data": "made up for a test"},
        recipe_sha256="ab" * 32,
        forced=forced,
        bootstrap_samples=100,
    )


def grouped(found: Predictions) -> Predictions:
    """The same with what is known of the cases."""
    generator = np.random.default_rng(5)
    count = len(found.ids)
    groups = {
        "site": np.asarray(generator.choice(["north", "south", "a small one"], p=[0.5, 0.48, 0.02], size=count)),
        "age band": np.asarray(generator.choice(["0-1", "2-3", "4-5"], size=count)),
    }
    return replace(found, groups=groups)


def costly(measured: Measured, joules: float, provenance: Provenance = "estimate") -> Measured:
    """The same with energy, cost and groups."""
    energy = Energy(provenance, joules, joules * 0.7, joules * 1.3, "Processor time times 6 W a core (4 to 8 W).")
    return replace(measured, predictions=grouped(measured.predictions), energy=energy, cost_per_million=joules * 20)


PARITY = Parity(
    reference=ParityRun("onnxruntime", "int8", 1, 1, "all", 0.0, 0),
    runs=(
        ParityRun("onnxruntime", "int8", 1, 8, "all", 0.0, 0),
        ParityRun("onnxruntime", "int8", 2, 64, "all", 1.2e-7, 0),
        ParityRun("onnxruntime", "int8", 1, 1, "avx2", 0.0031, 1),
        ParityRun("openvino", "int8", 1, 1, "all", None, None, "openvino is not installed"),
    ),
    cases=640,
    probes=16,
    tolerance=0.02,
)
SEARCH = Search(1800, 1512.3, 9, 2, (("pruned 0.95, int8", "cheaper than one that failed in every way"),), "")


@functools.cache
def full_evidence() -> Evidence:
    """With everything that an evidence can have: search, parity, groups, energy, cost, layers' sensitivity."""
    plain = evidence()
    parts = {}
    for name in ("validation", "test"):
        part = getattr(plain, name)
        before, after = costly(part.baseline, 0.41), costly(part.candidate, 0.018)
        parts[name] = replace(part, baseline=before, candidate=after, checks=judge(before, after, LIMITS, seed=0))
    fast, steps = plain.candidates[1].latency, [dict(step) for step in STEPS]
    curves = {
        f"layer{i}.conv{j}": {"channels": [64, 40, 24, 16], "damage": [0.0, 0.008 / i**j, 0.016 / i**j, 0.1]}
        for i in (1, 2, 3, 4)
        for j in (1, 2)
    }
    steps[0] = {**steps[0], "facts": {"sensitivity": curves}}
    steps[2] = {**steps[2], "facts": {"operator_errors": {"Conv_0": 0.2, "Conv_7": 0.05}}}
    found = []
    for index, ratio in enumerate((0.0, 0.25, 0.375, 0.5, 0.6, 0.6, 0.75, 0.8, 0.9)):
        chosen, missed = index == 4, ratio > 0.7
        found.append(
            CandidateRecord(
                f"prune channels {ratio} > int8 on {'openvino' if index == 5 else 'onnxruntime'}",
                {"prune.ratio": ratio},
                tuple(steps),
                judge(baseline(3), candidate(3, noise=0.9), LIMITS, seed=0) if missed else plain.validation.checks,
                round(11e6 * (1 - ratio) ** 2) + 60_000,
                replace(fast, p50_ms=22 * (1.05 - ratio) ** 2 * (2 if index == 5 else 1)),
                0.985 - ratio**4 / 20,
                chosen=chosen,
                reason="" if chosen or missed else "slower than the chosen one",
                threads=1,
                loss=ratio**4 / 40 - 0.0004,
                on_front=index not in (5,),
                advice="About 1,900 positive cases would show a loss of 0.01 to be inside the limit." if missed else "",
                slower_int8="3 operators of kind Conv take 1.4 times as long in int8." if index == 5 else "",
            )
        )
    found.append(CandidateRecord("prune channels 0.95", {}, reason="could not be exported: no channels left"))
    gate = try_gate(parts["validation"].baseline.predictions, LIMITS, seed=0)
    return replace(plain, candidates=tuple(found), parity=PARITY, search=SEARCH, gate=gate, **parts)
