"""What holds for the numbers of every benchmark."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Counts:
    """Sizes and counts are at least 1; only a seed may be 0."""

    def __post_init__(self):
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            for one in value if isinstance(value, tuple) else (value,):
                if f.name != "seed" and isinstance(one, (int, float)) and not isinstance(one, bool) and not one > 0:
                    raise ValueError(f"--{f.name.replace('_', '-')} must be above 0, got {one}.")
