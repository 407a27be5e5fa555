"""Activations on disk or made on demand, streamed to training. Import from the modules; this one loads nothing."""
