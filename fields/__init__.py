"""Neural fields as data: the field itself, and fitting, storing, drawing and measuring thousands of them.

In memory, three lines:

    data = fit(images)            # (N, H, W): one small network each
    weights = data.weights("train")            # (N, P)
    pictures = render(data.config, weights, 8, 8)            # (N, H, W, C)

Names are imported on first use. Sub-packages: `signals` (what fields are fitted to), `kinds` (what differs between pictures and
shapes), `fitting`, `storage`, `view`, `metrics`, `formats` (other projects' files), `hub`, `runtime`.
"""

from fields.runtime.contents import contents

_HOMES = {
    "FieldConfig": "model",
    "FieldModule": "module",
    "FIELDS": "model",
    "values": "model",
    "ACTIVATIONS": "activations",
    "OUTPUTS": "activations",
    "align": "symmetry",
    "canonical": "symmetry",
    "Signals": "signals.base",
    "SignalsConfig": "signals.options",
    "Images": "signals.images",
    "Samples": "signals.samples",
    "load_signals": "signals.registry",
    "KINDS": "kinds.registry",
    "kind_of": "kinds.registry",
    "fit": "fitting.memory",
    "FitConfig": "fitting.options",
    "Reference": "storage.reference",
    "WeightDataset": "storage.dataset",
    "Rows": "storage.rows",
    "render": "view.render",
    "sheet": "view.render",
    "save_png": "view.render",
    "psnr": "metrics.pairs",
    "iou": "metrics.pairs",
}
"""Public name -> the module that defines it."""
__all__ = sorted(_HOMES)
__getattr__, __dir__ = contents(__name__, _HOMES)
