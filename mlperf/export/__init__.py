"""Export to ONNX, and quantization of the MLPs."""
