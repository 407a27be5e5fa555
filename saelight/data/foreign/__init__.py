"""Activations in other layouts than saelight's shards, read where they lie."""
