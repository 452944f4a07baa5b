"""Reports without drawings: rendering is nine tenths of what a report costs."""

import pytest

from experiments.reporting import picture

SVG = b'<svg><g id="figure_1"/></svg>'


@pytest.fixture
def undrawn(monkeypatch):
  """Lets figures be composed but not rendered; their files have their numbers alone.

  Returns a list: figures whose names begin with one of its words are rendered.
  """
  rendered = []
  leave_out(monkeypatch, rendered)
  return rendered


def leave_out(monkeypatch, rendered=()):
  """Replaces the rendering of figures, but of those whose names begin so."""
  finish = picture.finish

  def composed(figure, name, title, caption, numbers):
    if name.startswith(tuple(rendered)):
      return finish(figure, name, title, caption, numbers)
    figure.clear()
    files = {"png": b"", "svg": SVG, "pdf": b"", "csv": numbers.to_csv().encode()}
    return picture.Picture(name, title, caption, files)

  monkeypatch.setattr(picture, "finish", composed)
