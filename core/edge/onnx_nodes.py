"""What both converters read of an ONNX graph."""

from __future__ import annotations

from typing import Any

import onnx

from featherweight.core.errors import BackendError


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name, as Python values."""
    return {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}


def ordered(target: str, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Makers before readers: quantizing leaves its nodes at the end. Raises BackendError where that cannot be."""
    known = {"", *(entry.name for entry in graph.initializer), *(value.name for value in graph.input)}
    waiting, found = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        if not ready:
            raise BackendError(f"{target}: {waiting[0].op_type} {waiting[0].name!r} reads what nothing makes")
        found += ready
        known.update(name for node in ready for name in node.output)
        waiting = [node for node in waiting if not known.issuperset(node.output)]
    return found
