"""One string is one choice: `rope(base=5e5)`, `my_pkg.spiral:Spiral(turns=3)`.

A spec is a name with literal arguments, which may be specs or tuples of specs:
`randomized(by_layer((rope(base=5e5), alibi)))`. Some kinds can be added up:
`gqa(2) + window(256)`. `Registry.build` makes the object.
"""

from transformer_jax.spec.errors import LARGEST_SEED, SpecError, check_seed, nearest
from transformer_jax.spec.grammar import outside
from transformer_jax.spec.registry import Registry
from transformer_jax.spec.trusted import registered_only, trust

__all__ = [
  "LARGEST_SEED",
  "Registry",
  "SpecError",
  "check_seed",
  "nearest",
  "outside",
  "registered_only",
  "trust",
]
