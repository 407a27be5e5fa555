"""Random numbers that are a pure function of what they are for: no generator state to save, none to share."""

import hashlib

import torch
from torch import Tensor


def generator(device: torch.device, *key: int | str) -> torch.Generator:
    """A generator seeded by `key` alone."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=7).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest))


def uniform(shape: tuple[int, ...], like: Tensor, *key: int | str) -> Tensor:
    """Uniform numbers in [0, 1) of `shape`, in `like`'s precision and on its device, the same for the same key."""
    return torch.rand(shape, generator=generator(like.device, *key), dtype=like.dtype, device=like.device)
