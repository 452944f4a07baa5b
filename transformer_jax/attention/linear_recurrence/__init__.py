"""Linear recurrences, of a matrix or of single numbers: definitions, parallel forms."""

from transformer_jax.attention.linear_recurrence.elementwise_recurrence import (
  elementwise as elementwise,
)
from transformer_jax.attention.linear_recurrence.elementwise_recurrence import (
  elementwise_sequential as elementwise_sequential,
)
from transformer_jax.attention.linear_recurrence.recurrence_chunks import (
  chunked as chunked,
)
from transformer_jax.attention.linear_recurrence.recurrence_definition import (
  StateUpdates as StateUpdates,
)
from transformer_jax.attention.linear_recurrence.recurrence_definition import (
  sequential as sequential,
)
