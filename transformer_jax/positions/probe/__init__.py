"""Quick test of a user's encoding: shapes of its hooks, and its declarations.

Cores trust declarations: a bias of absolute positions that leaves `relative` at True
would differ between `dense` and `blockwise`. `probe` runs the hooks on eight tokens and
three heads in NumPy (`numpy_interpreter.py`): nothing compiles, no device is used. It
takes 0.2 s for a rotation of five lines; docs/design.md has the times of the encodings
here. Results are cached for each value. `python -m experiments.check` runs the whole
contract.
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
  """Raises SpecError where a user's encoding, also inside another, is not as declared.

  dims   sizes of the model, for encodings that cannot use small ones
  """
  for encoding in parts(position, PositionalEncoding):
    if outside(type(encoding)):
      check_members(encoding, PositionalEncoding, bias=_bias, mask=_bias)
      probe(encoding, dims or SIZES)


def _bias(self, params, pos_L, pos_M):
  """Signature of `bias` and `mask`, which have no default."""


@functools.lru_cache(maxsize=256)
def probe(encoding: PositionalEncoding, dims: Dims = SIZES) -> EncodingFindings:
  """Returns an encoding's findings; raises SpecError where it is not as declared."""
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
  """Returns small sizes, or the model's if `init` refuses small ones."""
  try:
    jax.eval_shape(lambda: encoding.init(jax.random.key(0), SIZES))
  except Exception:  # whatever a user's code may raise: assert dims.K % 16 == 0
    return dims
  # The text is longer than in training, which shows dependence on the length. A table
  # must hold the whole text.
  return (
    dataclasses.replace(SIZES, L=3) if encoding.num_positions(SIZES) is None else SIZES
  )


def _probe(encoding: PositionalEncoding, dims: Dims) -> EncodingFindings:
  check_shapes(encoding, dims)
  findings = EncodingFindings(encoding, dims)
  for problem in problems(findings):
    raise SpecError(f"{type(encoding).__name__}{problem}")
  return findings
