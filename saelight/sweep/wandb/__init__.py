"""A sweep under `wandb agent`."""
