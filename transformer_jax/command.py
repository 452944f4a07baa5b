"""Front of every command: help, printable output, one-line errors, exit codes.

0: done; 1: something failed; 2: bad input; 128 + signal: stopped.
"""

import codecs
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, logging
from absl import flags as absl_flags

from transformer_jax.untrusted import shown

BAD_INPUT, INTERRUPTED, CLOSED_PIPE = 2, 130, 141  # exit codes
HELP = {"--help", "-help", "-h", "--helpshort", "-helpshort"}
FULL_HELP = {"--helpfull", "-helpfull"}
# ASCII replacements of characters that a terminal's encoding lacks.
PLAIN = {"−": "-", "±": "+-", "×": "x", "–": "-", "…": "...", "─": "-", "━": "-"}


def run(
  main: Callable[[Any], int | None],
  bad_input: tuple[type[Exception], ...],
  argv: Sequence[str] | None = None,
  parse: Callable[[list[str]], Any] | None = None,
  more_help: Callable[[], str] = str,
) -> None:
  """Runs a command under absl and exits with its code.

  main        the command, called with the result of `parse`; returns its exit code
  bad_input   exceptions that are printed as one line, without a traceback
  argv        the command line, the command first; default sys.argv
  parse       from argv to the argument of main; default absl's parser, which returns
              the positional arguments
  more_help   returns text that --help prints after the flags
  """
  make_printable()
  words = list(argv or sys.argv)
  if {*words[1:]} & (HELP | FULL_HELP):
    _help(full=bool({*words[1:]} & FULL_HELP), more=more_help())

  def quiet(parsed: Any) -> int | None:
    if not absl_flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.WARNING)  # JAX informs about absent hardware
    return guarded(lambda: main(parsed), bad_input)

  if parse is None:
    app.run(quiet, argv=words)
  else:
    app.run(
      quiet,
      argv=words,
      flags_parser=lambda given: guarded(lambda: parse(given), bad_input),
    )


def guarded(call: Callable[[], Any], bad_input: tuple[type[Exception], ...]) -> Any:
  """Returns `call()`; bad input, interrupts and closed pipes exit without traceback."""
  try:
    return call()
  except BrokenPipeError:  # as in `... --dry_run | head -1`
    # Python flushes at its end, into a pipe that nobody reads.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(CLOSED_PIPE)
  except bad_input as error:
    print(f"error: {shown(error)}", file=sys.stderr)
    sys.exit(BAD_INPUT)
  except KeyboardInterrupt:
    sys.exit(INTERRUPTED)


def make_printable() -> None:
  """Replaces characters that the terminal's encoding lacks, instead of raising."""
  codecs.register_error("plain", _plain)
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, "reconfigure"):
      stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
  if not isinstance(error, UnicodeEncodeError):
    raise error
  text = error.object[error.start : error.end]
  return "".join(PLAIN.get(letter, "?") for letter in text), error.end


def _help(full: bool, more: str) -> None:
  """Prints the command's docstring and flags, and exits with 0; absl exits with 1."""
  app.define_help_flags()
  app.usage(shorthelp=not full, writeto_stdout=True)
  if more:
    print(more)
  sys.exit(0)
