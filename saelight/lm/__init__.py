"""Causal language models with SAEs in them: what is put in the place of activations, and what it costs."""
