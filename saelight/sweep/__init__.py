"""Sweeps: from one file to points, groups, runs, results and figures."""
