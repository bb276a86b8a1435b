"""What a program may hold: an ONNX file is read strictly, and judged, before any runtime sees its bytes."""

from featherweight.core.inspection.check import check_content, inspect_program

__all__ = ["check_content", "inspect_program"]
