from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.apps.imaging.sealed import DecisionRule, Preprocess, decode_decision, decode_preprocess, encode
from featherweight.core.errors import ArtifactError

PREPROCESS, DECISION = Preprocess(side=224), DecisionRule(slope=1.0, intercept=0.0, threshold=0.5)


def test_sealed_files_come_back() -> None:
    assert decode_preprocess(encode(PREPROCESS)) == PREPROCESS
    assert decode_decision(encode(DECISION)) == DECISION


@pytest.mark.parametrize(
    "content",
    [
        encode(PREPROCESS).replace(b"area", b"\xff"),
        b'{"x":' + b"[" * 100_000,
        b'{"side":' + b"[" * 100_000,
        b"",
        b"\xff",
    ],
    ids=["no UTF-8", "deep in an unknown field", "deep", "empty", "no text"],
)
def test_what_is_no_text_or_has_no_end_is_no_settings(content: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"preprocess\.json"):
        decode_preprocess(content)
    with pytest.raises(ArtifactError, match=r"decision\.json"):
        decode_decision(content)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"slope": 0.0}, "slope"),
        ({"slope": -1.0}, "slope"),
        ({"slope": 5e-324}, "slope"),
        ({"slope": 1e308}, "slope"),
        ({"slope": math.nan}, "malformed"),
        ({"intercept": 1e308}, "intercept"),
        ({"threshold": 5e-324}, "threshold"),
        ({"threshold": 1 - 2**-53}, "threshold"),
        ({"threshold": 0}, "threshold"),
        ({"threshold": math.nan}, "malformed"),
        ({"threshold": math.inf}, "malformed"),
        ({"prevalence": 5e-324}, "prevalence"),
    ],
)
def test_a_decision_that_would_be_the_same_for_every_image_is_refused(fields: dict[str, float], told: str) -> None:
    content = json.dumps({**json.loads(encode(DECISION)), **fields}).encode()
    with pytest.raises(ArtifactError, match=rf"decision\.json: .*{told}") as caught:
        decode_decision(content)
    assert caught.value.exit_code == 5


@given(st.binary(max_size=200))
def test_any_bytes_raise_only_artifact_errors(content: bytes) -> None:
    for decode in (decode_preprocess, decode_decision):
        with pytest.raises(ArtifactError):
            decode(content)
