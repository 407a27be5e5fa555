"""Readers and writers of foreign SAE formats, one format a file; a seam for now, without any."""
