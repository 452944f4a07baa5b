"""Sphinx extension: pages of Jupyter notebooks, with the outputs they were saved with.

Markdown, code, printed text and PNGs: what our notebook has. The libraries that read
notebooks for Sphinx also run them, and bring 24 (nbsphinx) to 38 (myst-nb) packages.
"""

import json
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser

FENCE = "`" * 8  # longer than any fence in a cell or an output


class NotebookParser(MystParser):
  """Parser of a notebook, which becomes a page of MyST Markdown."""

  supported = ("notebook",)

  def parse(self, inputstring: str, document: nodes.document) -> None:
    super().parse(to_markdown(json.loads(inputstring)), document)


def to_markdown(notebook: dict[str, Any]) -> str:
  """Returns a notebook as Markdown, each code cell with its outputs below it.

  >>> code = {"cell_type": "code", "source": ["1 + 1"]}
  >>> code["outputs"] = [{"output_type": "execute_result", "data": {"text/plain": "2"}}]
  >>> print(to_markdown({"cells": [code]}).replace(FENCE, "---"))
  ---python
  1 + 1
  ---
  <BLANKLINE>
  ---text
  2
  ---
  """
  return "\n\n".join(part for cell in notebook["cells"] for part in _parts(cell))


def _parts(cell: dict[str, Any]) -> Iterator[str]:
  """Yields the Markdown of a cell; raises ValueError for outputs that it lacks."""
  source = "".join(cell["source"])
  if cell["cell_type"] == "markdown":
    yield source
    return
  yield _fence("python", source)
  for output in cell["outputs"]:
    yield _output(output)


def _output(output: dict[str, Any]) -> str:
  if output["output_type"] == "stream":
    return _fence("text", "".join(output["text"]))
  data = output.get("data", {})
  if "image/png" in data:
    png = "".join(data["image/png"]).replace("\n", "")
    return f"![What the code above draws](data:image/png;base64,{png})"
  if "text/plain" in data:
    return _fence("text", "".join(data["text/plain"]))
  raise ValueError(f"an output of the notebook is no text and no PNG: {output}")


def _fence(language: str, text: str) -> str:
  return f"{FENCE}{language}\n{text.rstrip()}\n{FENCE}"


def setup(app) -> None:
  app.add_source_suffix(".ipynb", "notebook")
  app.add_source_parser(NotebookParser)
