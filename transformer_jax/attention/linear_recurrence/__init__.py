"""Linear recurrences of a matrix: the definition, and a parallel form of it."""

from transformer_jax.attention.linear_recurrence.chunked import chunked as chunked
from transformer_jax.attention.linear_recurrence.sequential import (
  Tokens as Tokens,
)
from transformer_jax.attention.linear_recurrence.sequential import (
  sequential as sequential,
)
