"""A quick test of an encoding: do its hooks fit, and is what it declares true?

An encoding of one's own has no test here, and what it declares is believed: a bias that
reads absolute positions and leaves `relative` at True would be one thing in `dense` and
another in `blockwise`. `probe` runs its hooks on eight tokens and three heads with
NumPy (`numpy_interpreter.py`): nothing compiles, no device is used. It takes 0.2 s for
a rotation of five lines, 0.1 to 1.1 s for the encodings here, and is remembered for
each value.
`python -m experiments.check` runs the whole contract.
"""

import dataclasses
import functools

import jax

from transformer_jax.axes import Dims
from transformer_jax.members import check_members, outside, parts
from transformer_jax.positions.base import PositionalEncoding
from transformer_jax.positions.probe.encoding_findings import EncodingFindings
from transformer_jax.positions.probe.encoding_problems import problems
from transformer_jax.positions.probe.encoding_shapes import check_shapes
from transformer_jax.spec import SpecError

SIZES = Dims(V=11, D=24, H=3, F=8, L=16)


def check(position: PositionalEncoding, dims: Dims | None = None) -> None:
  """Raises SpecError where an encoding of a user, or one inside, is not as declared.

  dims   sizes of the model, for encodings that do not take the small ones here
  """
  for encoding in parts(position, PositionalEncoding):
    if outside(type(encoding)):
      check_members(encoding, PositionalEncoding, bias=_bias, mask=_bias)
      probe(encoding, dims or SIZES)


def _bias(self, params, pos_L, pos_M):
  """The arguments of a hook that encodings have or have not."""


@functools.lru_cache(maxsize=256)
def probe(encoding: PositionalEncoding, dims: Dims = SIZES) -> EncodingFindings:
  """Returns what an encoding does; raises SpecError where it is not as declared."""
  small = _sizes(encoding, dims)
  try:
    return _probe(encoding, small)
  except SpecError as error:
    if small is dims or dims is SIZES:
      raise
    try:
      return _probe(encoding, dims)  # it may be made for other sizes
    except SpecError:
      raise error from None


def _sizes(encoding: PositionalEncoding, dims: Dims) -> Dims:
  """Returns small sizes, or those of the model if it does not start with these."""
  try:
    jax.eval_shape(lambda: encoding.init(jax.random.key(0), SIZES))
  except Exception:  # whatever a user's code may raise: assert dims.K % 16 == 0
    return dims
  # Long for its training, so that what depends on the length shows; a table must reach.
  return (
    dataclasses.replace(SIZES, L=3) if encoding.num_positions(SIZES) is None else SIZES
  )


def _probe(encoding: PositionalEncoding, dims: Dims) -> EncodingFindings:
  check_shapes(encoding, dims)
  findings = EncodingFindings(encoding, dims)
  for problem in problems(findings):
    raise SpecError(f"{type(encoding).__name__}{problem}")
  return findings
