"""Writes docs/positions.md: every registered encoding, and where it works.

  python -m experiments.catalogue

Nothing is written here by hand but the sentences around the tables: names come from the
registry, papers from the files' docstrings, the rest from what the encodings declare
and from the table that models ask before they are built.
"""

import inspect
import math
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import jinja2

from transformer_jax.attention import cores
from transformer_jax.axes import Dims
from transformer_jax.models.support import MODES, USES, refusal
from transformer_jax.positions import PositionalEncoding, positions

HERE = Path(__file__).parent
PATH = HERE.parent / "docs" / "positions.md"
TEMPLATE = jinja2.Template(
  (HERE / "templates" / "positions.md").read_text("utf-8"),
  keep_trailing_newline=True,
  trim_blocks=True,
)
SIZES = {  # of models whose encodings are counted
  "small": Dims(V=256, D=64, H=4, F=256, N=2, L=64),
  "base": Dims(V=32_000, D=512, H=8, F=2048, N=6, L=512),
  "large": Dims(V=32_000, D=1024, H=16, F=4096, N=24, L=2048),
}
ACTS = {  # hooks, and where they act
  "place": "positions",
  "embed": "embeddings",
  "token_data": "reads tokens",
  "temperature": "temperature",
  "rotate": "queries and keys",
  "turn": "queries and keys",
  "bias": "bias",
  "score": "scores",
  "values": "values",
  "rows": "rows of scores",
}


def main() -> int:
  """Writes the page."""
  PATH.write_text(page(), encoding="utf-8")
  print(f"wrote {PATH}")
  return 0


def page() -> str:
  """Returns the page as Markdown."""
  encodings = {name: positions.build(name) for name in positions}
  header = ["name", "what it does", "paper", "acts on", "relative"]
  header += ["past the training length", *SIZES]
  reasons: list[str] = []
  cells = [
    [f"`{name}`", *(cell(encoding, use, reasons) for use in USES)]
    for name, encoding in encodings.items()
  ]
  return TEMPLATE.render(
    encodings=table(header, (line(*item) for item in encodings.items())),
    matrix=table(["name", *USES], cells),
    reasons=reasons,
  )


def line(name: str, encoding: PositionalEncoding) -> list[str]:
  """Returns what the first table says about an encoding."""
  return [
    f"`{name}`",
    purpose(encoding),
    paper(encoding),
    acts_on(encoding),
    "yes" if encoding.relative else "no",
    encoding.longer + (", whole text" if encoding.whole_text else ""),
    *(f"{parameters(encoding, dims):,}" for dims in SIZES.values()),
  ]


def purpose(encoding: PositionalEncoding) -> str:
  """Returns the first sentence of its docstring."""
  text = inspect.getdoc(type(encoding)) or ""
  start = " ".join(text.split("\n\n")[0].split())
  return re.split(r"(?<!et al\.)(?<=[.;])\s", start)[0].rstrip(";.")


def paper(encoding: PositionalEncoding) -> str:
  """Returns who published it and when, with a link."""
  module = sys.modules[type(encoding).__module__].__doc__ or ""
  text = " ".join((module if "http" in module else encoding.__doc__ or "").split())
  who = re.search(
    r"([\w'-]+(?: (?:and|&) [\w'-]+)?(?: et al\.)?), ((?:19|20)\d\d)", text
  )
  link = re.search(r"https?://\S+?(?=[\s.]*(?:\s|$))", text)
  if not (who and link):
    raise ValueError(
      f"{type(encoding).__module__}: start the file with 'Title. Author et al., year."
      " https://arxiv.org/abs/ID'"
    )
  return f"[{who[1].strip()}, {who[2]}]({link[0].rstrip(',')})"


def acts_on(encoding: PositionalEncoding) -> str:
  """Returns where it acts, from the hooks that it overrides."""
  found = [where for hook, where in ACTS.items() if encoding.overrides(hook)]
  return ", ".join(dict.fromkeys(found)) or "nothing"


def parameters(encoding: PositionalEncoding, dims: Dims) -> int:
  """Returns how many parameters it has in a decoder of these sizes."""
  shapes = jax.eval_shape(lambda: encoding.init(jax.random.key(0), dims))
  count = 0
  for name, x in shapes.items():
    uses = sum(encoding.layer(n).in_layer(name) for n in range(dims.N))
    count += math.prod(x.shape) * (uses if uses or encoding.in_layer(name) else 1)
  return count


def cell(encoding: PositionalEncoding, use: str, reasons: list[str]) -> str:
  """Returns which cores serve an encoding in one kind of attention, or why none."""
  modes = [mode for mode in MODES if (use, mode) != ("encoder", "decode")]
  refused = {
    name: [refusal(encoding, core(), use, mode) for mode in modes]
    for name, core in cores.items()
  }
  serving = [name for name, found in refused.items() if not any(found)]
  if use == "cross" and USES[use](encoding) == PositionalEncoding():
    return "nothing"
  if serving:
    return ", ".join(serving)
  reason = next(iter(refused.values()))[0]
  reason = re.sub(r"^\S+ in \w+ attention: ", "", reason)
  if reason not in reasons:
    reasons.append(reason)
  return f"no ({reasons.index(reason) + 1})"


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
  """Returns a table in Markdown."""
  rows = [header, ["---"] * len(header), *lines]
  escaped = ([word.replace("|", "\\|") for word in row] for row in rows)
  return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


if __name__ == "__main__":
  sys.exit(main())
