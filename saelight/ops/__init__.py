"""Maths that must be fast or exact, free of any variant: reference versions beside their fast paths."""
