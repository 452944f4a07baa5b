"""Data sets built from distribution packages, one file each, without TensorFlow."""

from transformer_jax.data.sources import brown as brown
from transformer_jax.data.sources import debian_descriptions as debian_descriptions
from transformer_jax.data.sources import debian_synopses as debian_synopses
from transformer_jax.data.sources import japanese_vowels as japanese_vowels
from transformer_jax.data.sources import libreoffice_help as libreoffice_help
from transformer_jax.data.sources import sotu as sotu
from transformer_jax.data.sources import us_births as us_births
from transformer_jax.data.sources.base import sources as sources
