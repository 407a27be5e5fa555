"""Looking at a sweep: status and figures."""
