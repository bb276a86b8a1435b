"""The one check of a program's bytes, where they are read from an artifact and where a backend opens them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from featherweight.core.errors import BackendError
from featherweight.core.inspection.operators import DIFFERING, LARGEST, OPERATORS, SCALED, SHAPE_OF, SHAPING
from featherweight.core.inspection.schema import MODEL
from featherweight.core.inspection.tensors import BITS, RANK, check_tensor, values_of
from featherweight.core.inspection.trees import check_trees
from featherweight.core.inspection.wire import Message, read_message

NODES = 20_000
"""A quantized network of 150 layers has 2,000."""
CONSTANTS = 50_000
NAME = 1_000
ATTRIBUTES = 64
IR_VERSIONS = range(3, 14)
OPSETS = {"": range(7, 31), "ai.onnx.ml": range(1, 7)}

_VALUE_FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}
"""ONNX's number of an attribute's type -> the field of its value; without graphs, sparse tensors and types."""

_checked: dict[bytes, frozenset[str]] = {}
"""Digest -> operators of what was found good: an artifact's program is checked when it is read, and its backend asks
again."""


def check_content(content: bytes) -> frozenset[str]:
    """The names of the program's operators. Raise BackendError unless `inspect_program` accepts the bytes; the same
    bytes are read once."""
    digest = hashlib.sha256(content).digest()
    if digest not in _checked:
        nodes = inspect_program(content)["graph"].get("node", [])
        _checked[digest] = frozenset(node["op_type"] for node in nodes)
    return _checked[digest]


def inspect_program(content: bytes) -> Message:
    """The whole file as a message (names as in onnx.proto), once everything in it is known to be what programs need.

    Raises BackendError, and nothing else, for other bytes.
    """
    try:
        return _inspect(content)
    except MemoryError as error:
        raise BackendError(
            f"the program of {len(content):,} bytes needs more memory to be checked than this process may have"
        ) from error


def _inspect(content: bytes) -> Message:
    model = read_message(content, MODEL)
    if model.get("ir_version") not in IR_VERSIONS:
        raise BackendError(f"the program's ir_version is {model.get('ir_version')}; versions 3 to 13 are read")
    _check_opsets(model.get("opset_import", []))
    if any(note.get("key") == "ort_config" for note in model.get("metadata_props", [])):
        raise BackendError("the program brings settings for its runtime; export it without them")
    graph = model.get("graph")
    if graph is None:
        raise BackendError("the program has no graph")
    _Graph(graph).check()
    return model


def _check_opsets(imports: Sequence[Message]) -> None:
    domains = [_domain(entry) for entry in imports]
    if len(set(domains)) < len(domains) or "" not in domains:
        raise BackendError(f"the program's operators are of {domains or 'no domain'}; expected ONNX's own, once each")
    for domain, entry in zip(domains, imports, strict=True):
        # Others are named by quantizers, and nothing of them is used.
        if domain in OPSETS and entry.get("version", 0) not in OPSETS[domain]:
            raise BackendError(f"the program uses operators of {domain or 'ai.onnx'} {entry.get('version')}")


def _domain(message: Message) -> str:
    domain: str = message.get("domain", "")
    return "" if domain == "ai.onnx" else domain


class _Graph:
    """known: names of tensors that are there already; valued: those among them that depend on the inputs' values;
    constants: name -> its tensor; rows: name -> (columns, ONNX's number of the type) of inputs [N, columns]."""

    def __init__(self, graph: Message) -> None:
        self._graph = graph
        self._known: set[str] = set()
        self._valued: set[str] = set()
        self._constants: dict[str, Message] = {}
        self._rows: dict[str, tuple[int, int]] = {}

    def check(self) -> None:
        graph = self._graph
        nodes, constants = graph.get("node", []), graph.get("initializer", [])
        if len(nodes) > NODES or len(constants) > CONSTANTS:
            raise BackendError(
                f"the program has {len(nodes)} nodes and {len(constants)} constants; at most {NODES} and {CONSTANTS} "
                "are run"
            )
        for value in graph.get("input", []):
            name = self._define(value.get("name", ""))
            shape = _check_value(value, smallest=1)
            if len(shape) == 2 and shape[1] is not None:
                self._rows[name] = shape[1], value["type"]["tensor_type"]["elem_type"]
            self._valued.add(name)
        for tensor in constants:
            self._add_constant(self._define(tensor.get("name", "")), tensor)
        for node in self._sorted(nodes):
            self._add_node(node)
        for value in graph.get("value_info", []):
            _check_value(value, smallest=0)
        outputs = [value.get("name", "") for value in graph.get("output", [])]
        for value in graph.get("output", []):
            _check_value(value, smallest=1)
            self._use(value.get("name", ""), "an output of the program")
        if not outputs or len(set(outputs)) < len(outputs) or not graph.get("input"):
            raise BackendError("the program has no inputs, or no outputs, or one output twice")

    def _sorted(self, nodes: Sequence[Message]) -> list[Message]:
        """Each behind those whose outputs it takes: quantizers write some at the end. Raises BackendError for circles
        (Kahn, 1962)."""
        maker = {name: index for index, node in enumerate(nodes) for name in node.get("output", []) if name}
        needed = [{maker[name] for name in node.get("input", []) if name in maker} for node in nodes]
        users: list[list[int]] = [[] for _ in nodes]
        for index, makers in enumerate(needed):
            for one in makers:
                users[one].append(index)
        waiting = [len(makers) for makers in needed]
        order = [index for index, count in enumerate(waiting) if not count]
        for index in order:
            for user in users[index]:
                waiting[user] -= 1
                if not waiting[user]:
                    order.append(user)
        if len(order) < len(nodes):
            raise BackendError("the program's operators wait for each other in a circle")
        return [nodes[index] for index in order]

    def _define(self, name: str) -> str:
        _check_name(name)
        if name in self._known:
            raise BackendError(f"the program names two tensors {name!r}")
        self._known.add(name)
        return name

    def _use(self, name: str, by: str) -> None:
        if name not in self._known:
            raise BackendError(f"the program's {name[:NAME]!r}, for {by}, is made nowhere before")

    def _add_constant(self, name: str, tensor: Message) -> None:
        check_tensor(tensor, f"constant {name!r}")
        self._constants[name] = tensor

    def _add_node(self, node: Message) -> None:
        operator, domain = node.get("op_type", ""), _domain(node)
        if operator not in OPERATORS.get(domain, ()):
            shown = f"{domain}::{operator}" if domain else operator
            raise BackendError(f"the program uses the operator {shown[:NAME]!r}, which no program needs")
        if node.get("overload"):
            raise BackendError(f"the program's operator {operator} is a function's overload")
        inputs, outputs = node.get("input", []), node.get("output", [])
        attributes = _read_attributes(operator, node.get("attribute", []))
        for name in inputs:
            if name:
                self._use(name, f"the operator {operator}")
        self._check_shaping(operator, inputs)
        self._check_form(operator, inputs, attributes)
        valued = operator not in SHAPE_OF and not self._valued.isdisjoint(inputs)
        for name in outputs:
            if name:
                self._define(name)
                if valued:
                    self._valued.add(name)
        self._note_rows(operator, inputs, outputs)
        if operator == "Constant" and outputs and "value" in attributes:
            self._constants[outputs[0]] = attributes["value"].get("t", {})
        if operator == "TreeEnsemble":
            rows = self._rows.get(inputs[0]) if inputs else None
            if rows is None:
                raise BackendError("the program's trees do not take an input of the program as it is")
            check_trees(attributes, *rows)

    def _note_rows(self, operator: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Rows stay rows where some of their values are rounded down: what categories are."""
        rows = self._rows.get(inputs[0] if operator == "Floor" else inputs[-1]) if inputs else None
        if rows is None or len(outputs) != 1:
            return
        if operator == "Floor":
            self._rows[outputs[0]] = rows
        elif operator == "Where" and len(inputs) == 3:
            chosen = [int(size) for size in self._constants.get(inputs[0], {}).get("dims", ())]
            if chosen == [1, rows[0]] and self._rows.get(inputs[1]) == rows:
                self._rows[outputs[0]] = rows

    def _check_form(self, operator: str, inputs: Sequence[str], attributes: dict[str, Message]) -> None:
        for switch in DIFFERING.get(operator, ()):
            if attributes.get(switch, {}).get("i", 0):
                raise BackendError(f"the program's {operator} has the switch {switch}, which runtimes read differently")
        if operator == "Dropout" and len(inputs) > 2 and inputs[2]:
            values = self._constants.get(inputs[2], {})
            held = [bytes(values["raw_data"])] if "raw_data" in values else list(values.get("int32_data", [1]))
            if any(one not in (0, b"\0") for one in held):
                raise BackendError(
                    "the program's Dropout drops values at random, as in training; export the network in eval mode"
                )

    def _check_shaping(self, operator: str, inputs: Sequence[str]) -> None:
        for place in SHAPING.get(operator, ()):
            if place < len(inputs) and inputs[place] in self._valued:
                raise BackendError(f"the program's {operator} makes a shape from the values of its input")
        if operator in SCALED:
            for name in inputs[1:3]:
                if name in self._constants and 0 in self._constants[name].get("dims", ()):
                    raise BackendError(f"the program's {operator} has an empty scale or zero point")
        place, most = LARGEST.get(operator, (0, 0))
        if most and place < len(inputs) and inputs[place] in self._constants:
            values = values_of(self._constants[inputs[place]])
            sizes = [] if values is None else [int(value) for value in values[:RANK]]
            if math.prod(max(1, abs(size)) for size in sizes) > most:
                raise BackendError(f"the program's {operator} makes a tensor of the shape {sizes}")


def _read_attributes(operator: str, attributes: Sequence[Message]) -> dict[str, Message]:
    """By name. Raises BackendError for one that is there twice, or says something else than its type."""
    if len(attributes) > ATTRIBUTES:
        raise BackendError(f"the program's operator {operator} has {len(attributes)} attributes")
    found: dict[str, Message] = {}
    for attribute in attributes:
        name = attribute.get("name", "")
        _check_name(name)
        field = _VALUE_FIELDS.get(attribute.get("type", 0))
        held = [known for known in _VALUE_FIELDS.values() if known in attribute]
        # An empty list, or a zero as some write it, has no value there.
        if name in found or field is None or held not in ([field], []) or attribute.get("ref_attr_name"):
            raise BackendError(f"the program's operator {operator} has an attribute {name!r} that cannot be trusted")
        if field == "t":
            check_tensor(attribute.get("t", {}), f"attribute {name!r} of {operator}")
        found[name] = attribute
    return found


def _check_value(value: Message, *, smallest: int) -> list[int | None]:
    """The shape of an input or output, None for what is open. Raises BackendError for what is not a tensor of
    numbers."""
    name = value.get("name", "")
    _check_name(name)
    tensor: Any = value.get("type", {}).get("tensor_type", {})
    dims = tensor.get("shape", {}).get("dim", [])
    if tensor.get("elem_type", 0) not in BITS or len(dims) > RANK:
        raise BackendError(f"the program's tensor {name!r} does not hold numbers")
    sizes = [dim.get("dim_value") for dim in dims]
    if any(size is not None and not smallest <= size < 1 << 31 for size in sizes):
        raise BackendError(f"the program's tensor {name!r} has the shape {sizes}")
    return sizes


def _check_name(name: str) -> None:
    if not 0 < len(name) <= NAME:
        raise BackendError(f"the program has a name of {len(name)} characters; expected 1 to {NAME}")
