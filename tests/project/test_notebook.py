"""The notebook of the docs: whole, executed, small, and a page of the site.

Its cells run in test_analysis.py, which has a sweep.
"""

import base64
import doctest
import importlib.util
import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs/howto/look_into_a_run.ipynb"


@pytest.fixture(scope="module")
def notebook():
  return json.loads(PAGE.read_text())


@pytest.fixture(scope="module")
def extension():
  """docs/notebooks.py, which Sphinx loads."""
  spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs/notebooks.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def code(notebook):
  return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_it_was_executed_from_top_to_bottom_and_is_small(notebook):
  counts = [cell["execution_count"] for cell in code(notebook)]
  assert counts == [*range(1, len(counts) + 1)]
  outputs = [output for cell in code(notebook) for output in cell["outputs"]]
  kinds = {output["output_type"] for output in outputs}
  assert kinds <= {"stream", "execute_result", "display_data"}  # no errors
  assert all(cell["outputs"] for cell in code(notebook)), "each shows something"
  assert not [x for x in outputs if x.get("name") == "stderr"]
  assert PAGE.stat().st_size < 300_000


def test_no_path_of_the_machine_is_in_it(notebook):
  text = "".join(
    json.dumps(output)
    for cell in code(notebook)
    for output in cell["outputs"]
    if "image/png" not in output.get("data", {})
  )
  assert not re.search(r"/(home|root|tmp|work|Users|usr)/", text)


def test_the_page_has_all_cells_and_outputs(notebook, extension):
  page = extension.to_markdown(notebook)
  for cell in notebook["cells"]:
    assert "".join(cell["source"]) in page
    for output in cell.get("outputs", ()):
      data = output.get("data", {})
      if "image/png" in data:
        png = re.sub(r"\s", "", "".join(data["image/png"]))
        assert f"data:image/png;base64,{png})" in page
        assert base64.b64decode(png).startswith(b"\x89PNG")
      else:
        text = "".join(output.get("text", data.get("text/plain")))
        assert text.rstrip() in page
  assert "image/png" in page


def test_the_example_of_the_extension_runs(extension):
  assert doctest.testmod(extension) == (0, 3)


def test_an_output_that_the_site_cannot_show_is_an_error(extension):
  html = {"output_type": "display_data", "data": {"text/html": "<b>1</b>"}}
  cell = {"cell_type": "code", "source": "1", "outputs": [html]}
  with pytest.raises(ValueError, match="no text and no PNG"):
    extension.to_markdown({"cells": [cell]})


def test_its_links_lead_somewhere(notebook):
  text = "\n".join(
    "".join(cell["source"])
    for cell in notebook["cells"]
    if cell["cell_type"] == "markdown"
  )
  for target in re.findall(r"\]\(([^)\s#]+)", text):
    assert re.match("[a-z]+:", target) or (PAGE.parent / target).exists(), target
