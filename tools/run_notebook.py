"""Runs a notebook in the folder where the commands are started, and saves its outputs.

  python tools/run_notebook.py docs/howto/look_into_a_run.ipynb

Needs requirements-notebook.txt; `make notebook` brings it for this once.
"""

import pathlib
import sys

import nbclient
import nbformat
from nbclient.exceptions import CellExecutionError

ROOT = pathlib.Path(__file__).parents[1]


def main(path: pathlib.Path) -> None:
  notebook = nbformat.read(path, as_version=4)
  folder = {"metadata": {"path": str(ROOT)}}
  client = nbclient.NotebookClient(notebook, resources=folder, record_timing=False)
  try:
    client.execute()
  except CellExecutionError as error:
    sys.exit(f"{path} stays as it was: {error.ename}: {error.evalue}")
  for cell in notebook.cells:
    for output in cell.get("outputs", ()):
      output.get("data", {}).pop("text/html", None)  # the site shows the text
  notebook.metadata.pop("language_info", None)  # the version of Python
  nbformat.write(notebook, path)


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
