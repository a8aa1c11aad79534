"""Export to ONNX and quantization for inference."""
