"""Evaluation: accuracy, likelihood, calibration, agreement with the dense model, size."""
