"""Trained SAEs judged on their language model."""
