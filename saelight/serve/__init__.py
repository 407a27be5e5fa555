"""A server that shows runs and sweeps as they train, and trains what is asked for over HTTP."""
