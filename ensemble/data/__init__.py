"""Datasets: layouts, tables, labels, splits, decoding, views and batches."""
