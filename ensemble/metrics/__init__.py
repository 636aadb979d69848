"""Metrics, intervals, calibration and the report of an evaluation."""
