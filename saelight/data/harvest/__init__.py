"""Activations written by a model: text in, shards out."""
