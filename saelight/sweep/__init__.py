"""Sweeps: from one file to many groups of SAEs, on whatever machines there are."""
