"""One training run: the Trainer, its folder, its report, what it exports, and its place in a Slurm job."""
