"""How fast activations are opened and streamed (docs/performance.md)."""
