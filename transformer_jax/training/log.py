"""Standard streams that lose lines, not work, on a full disk or a closed pipe."""

import io
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
  from _typeshed import ReadableBuffer


class Patient(io.FileIO):
  """A file whose writes never fail; content that the system refuses is lost.

  >>> import os
  >>> read, write = os.pipe()
  >>> os.close(read)  # as `command | head` does
  >>> with Patient(write, "wb") as stream:
  ...   stream.write(b"lost")
  4
  """

  def write(self, content: "ReadableBuffer", /) -> int:
    try:
      return super().write(content)
    except OSError:
      return memoryview(content).nbytes


def make_patient() -> None:
  """Lets prints to standard output and error never fail, from now on.

  Does nothing where they were replaced, as by a test or a notebook.
  """
  for name in ("stdout", "stderr"):
    stream = getattr(sys, name)
    if stream is not None and stream is getattr(sys, f"__{name}__"):
      setattr(sys, name, _patient(stream))


def is_patient(stream: TextIO | None) -> bool:
  """Returns whether `make_patient` made the stream."""
  return isinstance(getattr(getattr(stream, "buffer", None), "raw", None), Patient)


def _patient(stream: TextIO) -> TextIO:
  raw = Patient(stream.fileno(), "wb", closefd=False)
  return io.TextIOWrapper(
    io.BufferedWriter(raw),
    encoding=stream.encoding,
    errors=stream.errors,
    line_buffering=bool(stream.line_buffering),
  )
