"""Whether a base model is computed right here: our forward passes beside transformers' own."""
