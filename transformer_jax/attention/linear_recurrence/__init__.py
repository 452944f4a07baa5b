"""Linear recurrences of a matrix: the definition, and a parallel form of it."""

from transformer_jax.attention.linear_recurrence.recurrence_chunks import (
  chunked as chunked,
)
from transformer_jax.attention.linear_recurrence.recurrence_definition import (
  StateUpdates as StateUpdates,
)
from transformer_jax.attention.linear_recurrence.recurrence_definition import (
  sequential as sequential,
)
