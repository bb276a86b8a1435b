"""How recipes for the tasks of `tests.fakes` begin; a test adds its limits and steps."""

from __future__ import annotations


def recipe_head(task: str, limits: str, *, repetitions: int = 3, backends: str = '["onnxruntime"]') -> str:
    return f"""
version = 1
name = "{task}"
[source]
task = "{task}"
[measure]
backends = {backends}
repetitions = {repetitions}
[limits]
{limits}
"""
