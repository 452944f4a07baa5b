"""Numbers of README's table: counts of encodings, variants, cores and tasks."""

import re
from collections.abc import Collection
from pathlib import Path

import transformer_jax.data  # noqa: F401, fills the registry of tasks
from transformer_jax.attention import attentions
from transformer_jax.attention.cores import cores
from transformer_jax.data.base import tasks
from transformer_jax.interop.hf_family import families
from transformer_jax.positions import positions


def _is_mixer(name: str) -> bool:
  return attentions.build(name).mixer


README = Path(__file__).parents[2] / "README.md"
COUNTED: dict[str, Collection[str]] = {
  "positional encodings": positions,
  "attention variants": [name for name in attentions if not _is_mixer(name)],
  "mixers": [name for name in attentions if _is_mixer(name)],
  "attention cores": cores,
  "tasks": tasks,
  "families of HuggingFace weights": families,
}


def page() -> str:
  """Returns README with the current numbers of its table."""
  text = README.read_text("utf-8")
  before, start, rest = text.partition("<!-- counts:")
  table, end, after = rest.partition("<!-- end of counts -->")
  for name, registry in COUNTED.items():
    row = re.compile(rf"^(\| \[{name}\]\([^)]+\) \| )\d+( \|)", re.MULTILINE)
    table, rows = row.subn(rf"\g<1>{len(registry)}\g<2>", table)
    if rows != 1:
      raise ValueError(f"README's table of counts has {rows} rows '{name}'; write one")
  return before + start + table + end + after
