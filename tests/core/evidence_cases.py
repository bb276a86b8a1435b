"""A realistic comparison, made up: a classifier of 624 cases and its compressed form that is almost as good."""

from __future__ import annotations

import functools

import numpy as np

from core.evidence.judge import Limits, judge
from core.evidence.measured import Measured, Predictions
from core.evidence.report import CandidateRecord, Comparison, Evidence, summarize_latency
from core.measure import Conditions, Latency, Memory, Size, Throughput

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
    return Comparison(split, before, after, judge(before, after, LIMITS))


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
    worse = judge(baseline(3), candidate(3, noise=0.9), LIMITS)
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
        bootstrap_samples=300,
    )
