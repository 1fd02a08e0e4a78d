"""Transformers over the tokens of neural fields: model, data, training, sampling, evaluation."""
