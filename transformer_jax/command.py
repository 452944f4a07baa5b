"""Front of every command: help, printable output, one-line errors, exit codes.

0: done; 1: something failed; 2: bad input; 128 + signal: stopped.
"""

import atexit
import codecs
import contextlib
import functools
import gc
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import app, logging
from absl import flags as absl_flags

from transformer_jax.spec import nearest
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
  other_flags: Mapping[str, str] | None = None,
) -> None:
  """Runs a command under absl and exits with its code.

  main        the command, called with the result of `parse`; returns its exit code
  bad_input   exceptions that are printed as one line, without a traceback; errors of
              flags are too
  argv        the command line, the command first; default sys.argv
  parse       from argv to the argument of main; default `words_of`, which sets absl's
              flags and returns the positional arguments
  more_help   returns text that --help prints after the flags
  other_flags {flag: command that has it}, to say so of one that this command lacks
  """
  make_printable()
  words, one_line = list(argv or sys.argv), (*bad_input, absl_flags.Error)
  parse = parse or functools.partial(words_of, other_flags=other_flags)
  if {*words[1:]} & (HELP | FULL_HELP):
    _help(full=bool({*words[1:]} & FULL_HELP), more=more_help())

  def quiet(parsed: Any) -> int | None:
    if not absl_flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.WARNING)  # JAX informs about absent hardware
    with few_collections():
      return guarded(lambda: main(parsed), one_line)

  app.run(
    quiet,
    argv=words,
    flags_parser=lambda given: guarded(lambda: parse(given), one_line),
  )


@contextlib.contextmanager
def few_collections(objects: int = 100_000) -> Iterator[None]:
  """Collects garbage only after so many new objects, and not as the process ends.

  Modules and traces consist of many small objects that stay. Collecting after every
  700 of them, as Python does, takes a seventh of the time of imports and a fifth of
  that of tracing; looking at all of them once more at the end takes half a second.
  """
  usual = gc.get_threshold()
  gc.set_threshold(objects, *usual[1:])
  atexit.register(gc.freeze)
  try:
    yield
  finally:
    gc.set_threshold(*usual)


def words_of(
  argv: Sequence[str],
  values: absl_flags.FlagValues = absl_flags.FLAGS,
  other_flags: Mapping[str, str] | None = None,
) -> list[str]:
  """Sets the flags of a command line; returns the command and its other words.

  other_flags   {flag: command that has it}

  Raises absl's flags.Error of one sentence.
  """
  try:
    return values(argv)
  except absl_flags.Error as error:
    raise absl_flags.Error(sentence(error, values, other_flags or {})) from error


def sentence(
  error: absl_flags.Error,
  values: absl_flags.FlagValues,
  other_flags: Mapping[str, str],
) -> str:
  """Returns an error of absl as flag, value and what to write instead.

  other_flags   {flag: command that has it}
  """
  if isinstance(error, absl_flags.UnrecognizedFlagError):
    name = error.flagname
    if command := other_flags.get(name.partition(".")[0]):
      return f"--{name} is a flag of {command}; --help lists those of this command"
    near = nearest(f"--{name}", [f"--{flag}" for flag in _own_flags(values)])
    return f"unknown flag --{name}.{near} --help lists the flags"
  match = re.match(r"flag --([\w.]+)=(.*?): ", str(error), re.DOTALL)
  if match and (wanted := values[match[1]].parser.syntactic_help):
    return f"--{match[1]}={match[2]!r}: write {wanted}"
  return " ".join(str(error).split())


def _own_flags(values: absl_flags.FlagValues) -> list[str]:
  """Returns the names of the flags that are no debugging aids of absl itself."""
  return [
    flag.name
    for module, flags in values.flags_by_module_dict().items()
    if not module.startswith("absl.")
    for flag in flags
  ]


def require(values: absl_flags.FlagValues, **examples: str) -> None:
  """Raises absl's flags.Error for a flag without a value.

  examples   {name of a required flag: a value for the message}

  To be called after a check of positional words, which may be its missing value.
  """
  for name, example in examples.items():
    if not getattr(values, name):
      raise absl_flags.Error(f"--{name} is missing; write --{name}={example}")


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
