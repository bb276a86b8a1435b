"""JSON whose objects name a key twice: found wherever it stands, and refused in what is sealed."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.artifact.manifest import decode_manifest, encode_manifest
from core.errors import ArtifactError
from core.keys import Repeated, find_repeated
from core.sealed import decode_sealed
from tests.core.test_artifact import _manifest


class Point(msgspec.Struct):
    x: float


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1, "b": {"a": 2}}', None),
        ('[{"a": 1}, {"a": 1}]', None),
        ('{"a": 1, "a": 1}', Repeated("a", ())),
        ('{"a": 1, "\\u0061": 2}', Repeated("a", ())),
        ('{"rows": [{}, {"b": 1, "b": null}]}', Repeated("b", ("rows", 1))),
        ('{"x": {"y": [[{"c": [], "c": {}}]]}}', Repeated("c", ("x", "y", 0, 0))),
        ('{"a": ' + "9" * 5000 + ', "a": 1}', Repeated("a", ())),
        ("{", None),
    ],
)
def test_a_repeated_key_is_found_with_its_place(text: str, found: Repeated | None) -> None:
    assert find_repeated(text) == find_repeated(text.encode()) == found


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(anything)
def test_what_a_writer_writes_repeats_no_key(value: Any) -> None:
    assert find_repeated(json.dumps(value)) is None


def test_a_sealed_file_is_refused() -> None:
    assert decode_sealed(b'{"x": 1}', Point, "point.json").x == 1
    with pytest.raises(ArtifactError, match=r"point\.json: an object has the key 'x' more than once"):
        decode_sealed(b'{"x": 1, "x": 2}', Point, "point.json")


def test_a_manifest_is_refused() -> None:
    content = encode_manifest(_manifest())
    assert decode_manifest(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json: .* the key 'name' more than once"):
        decode_manifest(content.replace(b"{", b'{"name": "other", ', 1))
