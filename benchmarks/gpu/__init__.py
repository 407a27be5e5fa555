"""saelight's first minutes on a GPU: `python benchmarks/gpu/gpu_check.py --help`; a rehearsal without one is a test."""
