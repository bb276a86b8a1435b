"""Artifacts for boxes that run neither Python servers nor ONNX files: one file in another runtime's format, verified by
running it there."""
