"""Contradictions between an encoding's declarations and its hooks, as messages."""

from collections.abc import Iterator

from transformer_jax.positions.probe.encoding_findings import EncodingFindings

LOCAL = {
  "embed": ".embed of some tokens differs from that of all, as in decoding: change each"
  " token by itself, by at.pos_BL",
  "token_data": ".token_data of some tokens differs from that of all, as in decoding:"
  " read each token by itself, and add up in accumulate",
  "transform_qk": ".transform_qk or .rotate of some queries differs from that of all,"
  " as in decoding:"
  " turn each by its own position",
  "score": ".score of a tile differs from that part of the whole, so that cores would"
  " differ; use full_scores(), which gets whole rows of scores",
  "bias": ".bias of some positions differs from that part of the whole, so that cores"
  " would differ; read each pair of positions by itself",
  "values": ".values is not linear in the weights, so that cores would differ; multiply"
  " w_LM with something that does not read it",
  "prepare": ".prepare changes what score computes; let it only save work",
}


def problems(findings: EncodingFindings) -> Iterator[str]:
  """Yields one message for each contradiction; it continues the class's name."""
  encoding = findings.encoding
  for name, difference in findings.apart.items():
    if difference > 1e-3:
      yield LOCAL[name]
  if findings.lowest < -1e6:
    yield (
      f" gives a score of {findings.lowest:g} to a key; a soft cap or a mixture of"
      " heads would calculate with that number: return True where a head attends from"
      " mask(self, params, pos_L, pos_M) instead"
    )
  if encoding.relative and findings.shift[0]:
    difference, by = findings.shift
    yield (
      f" declares relative = True, the default, but moving all positions by {by}"
      f" changes what it computes by {difference:.0%}; write relative = False in the"
      " class"
    )
  yield from _of_other_tokens(findings)
  yield from _of_tables(findings)
  for name in findings.idle:
    yield (
      f": parameter '{name}' has no gradient, because no hook computes with it; read"
      f" params['{name}'] in a hook, or leave it out of init"
    )


def _of_other_tokens(findings: EncodingFindings) -> Iterator[str]:
  """Yields messages on what later tokens and other texts change."""
  encoding = findings.encoding
  if findings.future > 1e-3:
    yield (
      ": what later tokens hold changes earlier ones, which have not read them; sum"
      " from the past only, as jnp.cumsum does, or mask with tile.mask_LM"
    )
  if not encoding.needs_full_text and findings.later_tokens > 1e-3:
    yield (
      ": how many tokens come later changes earlier ones, so that decoding on a cache"
      " would differ; write needs_full_text = True in the class"
    )
  declared = encoding.needs_full_text or encoding.centred
  if not declared and findings.later_turns > 1e-3:
    yield (
      ".transform_qk depends on tokens that come later, which only the product of"
      " query and key forgets; write centred = True in the class"
    )
  if findings.border > 1e-3:
    yield (
      " reads over the border of two texts in one row; compare at.segment_BL, or use"
      " differences of sums, in which the other text cancels"
    )


def _of_tables(findings: EncodingFindings) -> Iterator[str]:
  """Yields messages on tables that are indexed by position."""
  encoding = findings.encoding
  if not encoding.integer_positions and findings.looks_up:
    yield (
      " looks up a table by position, which has nothing between whole numbers;"
      " write integer_positions = True in the class"
    )
  if (
    findings.num_positions is None
    and encoding.extrapolation == "defined"
    and findings.looks_up
    and findings.clamped
  ):
    yield (
      " looks up a table by position, and all positions past its end get its last"
      " row in silence; return the number of rows from num_positions(dims), and NaN"
      " past them: table.at[pos].get(mode='fill', fill_value=jnp.nan)"
    )
