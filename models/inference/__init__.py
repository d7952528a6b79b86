"""Predictions of trained models: in Python, as batch jobs, and exported to ONNX."""
