"""Seeds of the parts of a model, so that the new weights of one do not depend on which others there are."""

import hashlib

import torch


def seed_part(seed: int, *names: str) -> None:
    """Seeds torch's generator from ``seed`` and the part's ``names``."""
    key = "/".join([str(seed), *names]).encode()
    torch.manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1)
