"""Continues texts with a trained decoder: a prompt, or a file with one on each line.

  python -m experiments.generate --run=runs/quickstart/runs/ID --prompt='def main('
  python -m experiments.generate --run=runs/lineage/runs/ID --input=prompts \\
    --temperature=0.8 --top_p=0.95 --samples=3 --tokens=200

For runs of the tasks `text`, `tokens` and `prefix_tokens`. The continuation of a prompt
is printed as it is. With a file or standard input, each line of output continues a line
of input, empty lines stay empty, and a newline in a continuation is written as \\n.
Without --temperature decoding is greedy.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import inference
from experiments.setup.flag_errors import OF_SWEEP
from experiments.setup.validate import ConfigError
from transformer_jax import command
from transformer_jax.data.tasks.language.text import Text
from transformer_jax.evaluation.decode import Sampling, greedy, sample
from transformer_jax.positions import coords
from transformer_jax.spec import LARGEST_SEED

FLAGS = flags.FLAGS
KINDS = ("decoder", "prefix_decoder")


def define() -> None:
  """Defines the command's flags."""
  inference.define("continued")
  flags.DEFINE_string("prompt", None, "Prompt to continue, instead of --input.")
  flags.DEFINE_integer("tokens", 100, "Most tokens to generate.", lower_bound=1)
  flags.DEFINE_float("temperature", None, "Samples tokens; divides the logits.")
  flags.DEFINE_integer("top_k", 0, "Samples from the k most likely tokens; 0: all.")
  flags.DEFINE_float("top_p", 1.0, "Samples from the nucleus of this probability.")
  flags.DEFINE_integer("samples", 1, "Continuations of each prompt.", lower_bound=1)
  flags.DEFINE_integer(
    "key", 0, "Seed of sampling.", lower_bound=0, upper_bound=LARGEST_SEED
  )


def main(argv: list[str]) -> None:
  """Prints the continuations."""
  inference.main(argv, _answers)


def _answers() -> Iterator[str]:
  generator = load(Path(FLAGS.run), FLAGS.seed, FLAGS.average, FLAGS.step)
  how = _sampling()
  write = functools.partial(generator, steps=FLAGS.tokens, how=how)
  if FLAGS.prompt is not None:
    for n in range(FLAGS.samples):
      yield from write([FLAGS.prompt], key=FLAGS.key + n)
    return
  batches = 0

  def answer(prompts: list[str]) -> Iterator[str]:
    nonlocal batches
    batches += 1
    key = FLAGS.key + (batches - 1) * FLAGS.samples
    drawn = [write(prompts, key=key + n) for n in range(FLAGS.samples)]
    for texts in zip(*drawn, strict=True):
      yield "\n".join(text.replace("\n", "\\n") for text in texts)

  yield from inference.together(inference.lines(FLAGS.input), FLAGS.batch_size, answer)


def _sampling() -> Sampling | None:
  """Returns the sampling of the flags, None for greedy decoding."""
  if FLAGS.temperature is not None:
    return Sampling(FLAGS.temperature, FLAGS.top_k, FLAGS.top_p)
  for name in ("top_k", "top_p", "samples", "key"):
    if FLAGS[name].present:
      raise ConfigError(f"--{name} is for sampling: write --temperature=1 too")
  return None


def load(
  run: Path, seed: int = 0, last: int = 1, step: int | None = None
) -> "Generator":
  """Returns the generator of a trained run; raises ConfigError.

  run    folder of the run
  seed   index of its seed, from 0
  last   number of newest checkpoints to average
  step   of the newest of them; None: the newest on disk
  """
  trained = inference.load(run, Text, "a text to write", seed, last, step)
  return Generator(trained, trained.tokenizer or Bytes())


class Generator:
  """A trained decoder with its vocabulary, called with prompts.

  trained     one seed of a run; ConfigError unless its model is a decoder
  tokenizer   its encode, decode and end token are used
  """

  def __init__(self, trained: inference.Trained, tokenizer: Any):
    kind = trained.experiment.task.kind
    if kind not in KINDS:
      raise ConfigError(f"{trained.folder}: its model is no decoder but an {kind}")
    self.model, self.params = trained.experiment.trainer.model, trained.params
    self.tokenizer = tokenizer
    self.prefix = kind == "prefix_decoder"

  def __call__(
    self, prompts: Sequence[Any], steps: int, how: Sampling | None = None, key: int = 0
  ) -> list[Any]:
    """Returns a continuation of each prompt.

    steps   maximum number of tokens to generate
    how     sampling, with the seed `key`; None: greedy decoding
    """
    encoded = [self.tokenizer.encode(text) for text in prompts]
    if not all(encoded):
      raise ConfigError("a prompt has no token; write at least one letter")
    self._check_positions(max(map(len, encoded)) + steps)
    token_BL, real_BL = _padded(encoded)
    program = _program(self.model, steps, how, self.tokenizer.end, self.prefix)
    text_BN = program(self.params, token_BL, real_BL, jax.random.key(key))
    return [self._text(text_N) for text_N in np.asarray(text_BN)]

  def _check_positions(self, tokens: int) -> None:
    arch = self.model.arch
    num_positions = arch.position.num_positions(arch.dims)
    if num_positions is not None and tokens > num_positions:
      raise ConfigError(
        f"prompt and continuation have {tokens} tokens and {arch.position.name} has"
        f" {num_positions} positions: write fewer --tokens, or shorten the prompt"
      )

  def _text(self, tokens: np.ndarray) -> Any:
    if (tokens < 0).any():
      raise ConfigError("the model's logits are not numbers: its training diverged")
    ends = np.flatnonzero(tokens == self.tokenizer.end)
    return self.tokenizer.decode(tokens[: ends[0] if len(ends) else None].tolist())


class Bytes:
  """Tokenizer of the task `text`: UTF-8 bytes, without an end token.

  >>> Bytes().encode("ja"), Bytes().decode([106, 97])
  ([106, 97], 'ja')
  """

  end = None

  def encode(self, text: str) -> list[int]:
    return [*text.encode()]

  def decode(self, tokens: Iterable[int]) -> str:
    return bytes(tokens).decode(errors="replace")


def _padded(texts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
  """Returns left-padded tokens, and the mask of real ones.

  L is a power of two, so that few programs are compiled.
  """
  L = 1 << (max(map(len, texts)) - 1).bit_length()
  token_BL = np.array([[0] * (L - len(text)) + text for text in texts], np.int32)
  real_BL = np.array([[False] * (L - len(x)) + [True] * len(x) for x in texts])
  return token_BL, real_BL


@functools.lru_cache(maxsize=16)
def _program(
  model: Any, steps: int, how: Sampling | None, end: int | None, prefix: bool
):
  """Returns the jitted `(params, token_BL, real_BL, key) -> text_BN`.

  model    the Transformer
  steps    N, the tokens to generate
  how      sampling; None: greedy decoding
  end      token that ends a text; None: none does
  prefix   the prompt attends in both directions
  """

  def write(params, token_BL, real_BL, key):
    at = coords.padded(real_BL)
    at = at.prefix(real_BL.sum(axis=1, keepdims=True)) if prefix else at
    if how is None:
      return greedy(model, params, token_BL, steps, at, end=end)
    return sample(model, params, token_BL, steps, key, how, at, end=end)

  return jax.jit(write)


if __name__ == "__main__":
  define()
  command.run(main, (ConfigError,), other_flags=OF_SWEEP)
