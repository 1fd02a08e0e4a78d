"""Neural fields as data: configs, layouts, fitting, datasets, rendering, metrics."""
