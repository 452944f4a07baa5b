"""Transformers in JAX whose positional encodings are values you can compare."""

__version__ = "0.1.0"
