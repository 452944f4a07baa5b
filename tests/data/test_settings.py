"""Every task over data says alike which split and which sizes it cannot use."""

import pytest

from transformer_jax.data.base import check_sizes, check_split, tasks
from transformer_jax.data.files import DataError

OVER_DATA = ("text('a.txt'{})", "tokens('a.txt'{})", "translation('a.tsv'{})")
OVER_DATA += ("images('digits'{})", "classification('a.tsv', classes=2{})")
OVER_DATA += ("tagging('a.tsv', classes=2{})",)


@pytest.mark.parametrize("spec", OVER_DATA)
@pytest.mark.parametrize(
  ("field", "says"),
  [
    ("split='tets'", "cannot be scored. Did you mean 'test'? Choose validation"),
    ("limit=0", "limit is 0; it must be at least 1"),
  ],
)
def test_a_setting_that_cannot_be_used_is_named(spec, field, says):
  with pytest.raises(DataError) as caught:
    tasks.build(spec.format(f", {field}"))
  assert says in str(caught.value)


def test_sizes_that_may_be_used_pass():
  check_split("task", "validation")
  check_sizes("task", rows=1, limit=None)
  with pytest.raises(DataError, match="task: rows is 1; it must be at least 2"):
    check_sizes("task", 2, rows=1)
