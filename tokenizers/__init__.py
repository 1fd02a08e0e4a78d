"""Vocabularies for the weights of neural fields. Not Hugging Face's package of the same name: see README, "Names"."""
