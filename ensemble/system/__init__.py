"""Devices, cores, memory limits, locks and progress."""
