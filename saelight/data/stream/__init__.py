"""Rows to batches: order, reading ahead, loaders."""
