"""Foreign ONNX files as modules that can be trained, pruned and exported, or at least exported and quantized."""

from featherweight.core.onnx_network.network import OnnxNetwork
from featherweight.core.onnx_network.read import read_onnx_network

__all__ = ["OnnxNetwork", "read_onnx_network"]
