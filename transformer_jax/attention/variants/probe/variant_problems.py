"""Broken contracts of a variant, as messages for its author."""

from collections.abc import Iterator

from transformer_jax.attention.variants.probe.variant_findings import VariantFindings

LOCAL = {
  "token_data": ".token_data of some tokens differs from that of all, as in decoding:"
  " read each token by itself, and sum along the text in accumulate()",
  "temperature": ".temperature of some tokens differs from that of all, as in decoding:"
  " read coordinates and data of each token by itself",
  "score": ".score of a tile differs from that part of the whole, so that cores would"
  " differ: change each score by its query and key, or use weigh_at(), which gets whole"
  " rows",
  "own_value": ".own_value of some tokens differs from that of all, as in decoding:"
  " change each token by itself",
  "condition": ".condition of some tokens differs from that of all, as in decoding:"
  " change each by itself",
  "rotated": ".rotated of some tokens differs from that of all, as in decoding:"
  " change each by itself",
  "features": ".features of some tokens differ from those of all: make them of each"
  " token by itself",
  "dot": ".dot of a tile differs from that part of the whole, so that cores would"
  " differ: read one query and one key at a time",
  "logits": ".logits of a tile differ from that part of the whole, so that cores would"
  " differ: change each score by itself, or use weigh(), which gets whole rows",
  "pointwise": ".pointwise of a tile differs from that part of the whole, so that cores"
  " would differ: weigh each score by itself, or use weigh(), which gets whole rows",
  "mask": ".mask of a tile differs from that part of the whole, so that cores would"
  " differ: decide for each query and key by their own coordinates",
  "values": ".values of some tokens differ from those of all, as in decoding: change"
  " each value by itself",
  "mixed": ".mixed of some tokens differs from that of all, as in decoding: change"
  " each mixture by itself",
  "output": ".output of some tokens differs from that of all, as in decoding: change"
  " each token by itself",
}


def problems(findings: VariantFindings) -> Iterator[str]:
  """Yields a message for each broken contract, to follow the name of the class."""
  for name, difference in findings.usual["apart"].items():
    if difference > 1e-3:
      yield LOCAL[name]
  weigh = "weigh_at" if findings.variant.overrides("weigh_at") else "weigh"
  if findings.usual["unseen"] > 1e-6:
    yield (
      f".{weigh} gives weight to keys that a query must not see; return"
      " jnp.where(mask_B1LM, w_BHLM, 0.0), after a sum over what is seen alone"
    )
  if findings.future > 1e-3:
    yield (
      ": what later tokens hold changes earlier ones; leave keys out of every sum"
      " where mask_B1LM is False"
    )
  if findings.room > 1e-3:
    yield (
      ": places without a token change the others, so that a cache with room would"
      " differ; count keys by mask_B1LM, never by the shape of an array"
    )
  if findings.border > 1e-3:
    yield (
      " reads over the border of two texts in one row; leave keys out of every sum"
      " where mask_B1LM is False"
    )
  for name in findings.idle:
    yield (
      f": parameter '{name}' has no gradient, because no hook computes with it; read"
      f" params['{name}'] in a hook, or leave it out"
    )
