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
