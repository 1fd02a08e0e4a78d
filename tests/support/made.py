"""Made-up rows for tests."""

import torch

from fields.model import FieldConfig


def generator(seed: int = 0) -> torch.Generator:
    """Seeded randomness."""
    return torch.Generator().manual_seed(seed)


def rows(config: FieldConfig, n: int, seed: int = 0, spread: float = 0.1) -> torch.Tensor:
    """(n, P) rows around a common base."""
    g = generator(seed)
    return 0.5 * torch.randn(1, config.size, generator=g) + spread * torch.randn(n, config.size, generator=g)


SMALL: dict[str, dict] = {
    "vqvae": {"steps": 4, "hidden": 8, "eval_every": 2, "batch": 16, "points": 16, "span": 2.5, "rate": 0.0}
}
"""Options per kind under which a fit takes no time."""
SMALL["graph"] = SMALL["vqvae"] | {"channels": 16, "meta_steps": 30}
SMALL["regions"] = {"steps": 4, "hidden": 8, "encoder": 8, "grid": (3, 4), "side": 2, "margin": 1, "width": 4} | {
    "eval_every": 2,
    "batch": 16,
    "points": 16,
}


SOLID = FieldConfig(hidden=(6,), octaves=0, in_dim=3, output="linear")


def diamonds(n, seed):
    """(n, 31) weights of `SOLID`: a |x| + b |y| + c |z| - 0.5 with random a, b, c."""
    row = torch.zeros(n, SOLID.size)
    for i in range(6):
        row[:, 3 * i + i // 2] = 1.0 if i % 2 else -1.0
    stretch = torch.rand(n, 3, generator=torch.Generator().manual_seed(seed)) * 2 + 0.6
    row[:, 24:30] = stretch.repeat_interleave(2, 1)
    row[:, 30] = -0.5
    return row
