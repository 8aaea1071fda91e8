"""Indexes, vectors and ONNX graphs for other systems."""
