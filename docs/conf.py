"""Settings of Sphinx, which builds docs/ as a site: see `make docs`."""

import pathlib
import re
import sys

import setuptools

HERE = pathlib.Path(__file__).parent
ROOT = str(HERE.parent)
sys.path[:0] = [ROOT, str(HERE)]
from transformer_jax import __version__  # noqa: E402

project, author, release = "transformer_jax", "the authors", __version__
copyright = "the authors, Apache License 2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
extensions += ["notebooks"]  # docs/notebooks.py
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

html_theme, html_title = "furo", "transformer_jax"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_copy_source = html_show_sourcelink = False
myst_heading_anchors = 4  # links to headings are checked
default_role = "code"  # our docstrings write `name`

toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
# A page per package, made by _templates/autosummary/module.rst.
autosummary_context = {"packages": setuptools.find_packages(ROOT)}
autodoc_inherit_docstrings = False  # a hook is explained once, in the base class

ARGUMENT = re.compile(r"(\S(?:[^\s]| (?! ))*) {2,}(\S.*)")


def as_rst(app, what, name, obj, options, lines):
  """Makes reStructuredText of a docstring: prose, and columns of names."""
  blocks = re.split(r"\n\s*\n", "\n".join(lines))
  lines[:] = "\n\n".join(map(block, blocks)).splitlines()


def block(text):
  """Returns a paragraph of a docstring as reStructuredText."""
  lines = text.rstrip().splitlines()
  if not lines or lines[0].startswith(">>> "):
    return text
  named = [ARGUMENT.fullmatch(line) for line in lines]
  if named[0] and all(
    match or line[0] == " " for match, line in zip(named, lines, strict=True)
  ):
    return columns(lines)
  if any(line.startswith(" ") for line in lines):
    return "::\n\n" + "\n".join(f"  {line}" for line in lines)
  return escaped(text)


def columns(lines):
  """Returns lines `name   text` as a list of definitions."""
  found = []
  for line in lines:
    match = ARGUMENT.fullmatch(line)
    name, text = match.groups() if match else ("", line.strip())
    found.append(f"``{name}``\n  {escaped(text)}" if name else f"  {escaped(text)}")
  return "\n".join(found)


def escaped(text):
  """Returns prose with code as code and all other marks as themselves."""
  code = re.split(r"`+([^`]+)`+", text)
  code[::2] = (re.sub(r"([\\*|_])", r"\\\1", prose) for prose in code[::2])
  code[1::2] = (f"\\ ``{word}``\\ " for word in code[1::2])
  return "".join(code)


def setup(app):
  app.connect("autodoc-process-docstring", as_rst)
