"""Long lines and the subword vocabulary.

Reported: `subword` learned nothing from lines above 4,192 bytes, which SentencePiece
skips, and said nothing: 0.37 tokens a byte instead of 0.28, and no vocabulary at all
for speeches that are one line each. Right: long lines are read in pieces, tokens per
byte are within 5% of those of the wrapped text, and lines left out are counted and
said.
"""

import numpy as np
import pytest

from experiments.runner import train
from transformer_jax.data.base import tasks
from transformer_jax.data.tokenizers import tokenizers

SPEC = "subword(size=600)"


def words(count):
  """Returns words of 2 to 9 letters out of 400, some much more common."""
  rng = np.random.default_rng(0)
  spelled = ["".join(map(chr, rng.integers(97, 123, 2 + n % 8))) for n in range(400)]
  return [spelled[int(399 * x**3)] for x in rng.random(count)]


def lines(size):
  """Returns the same words in lines of about so many bytes, one line in ten shorter."""
  found, line = [], []
  for word in words(20_000):
    line.append(word)
    if sum(map(len, line)) > (size if len(found) % 10 else size / 10):
      found.append(" ".join(line))
      line = []
  return [*found, " ".join(line)]


def test_long_lines_are_learned_from_as_the_wrapped_text_is():
  long, wrapped = lines(6_000), lines(200)
  text = "\n".join(wrapped)
  used = [tokenizers.build(SPEC).train(x) for x in (long, wrapped)]
  ratio = len(used[0].encode(text)) / len(used[1].encode(text))
  assert 0.95 < ratio < 1.05
  sizes = [len(line) for line in long]
  assert used[0].facts["vocabulary_text"] == {
    "bytes": sum(sizes),
    "cut": sum(size > 4192 for size in sizes),
    "left_out": 0,
    "left_out_bytes": 0,
  }
  assert used[1].facts["vocabulary_text"]["cut"] == 0


@pytest.mark.parametrize("letter", ["a", "\u20ac", "\U0001d11e"])
def test_a_line_without_spaces_is_cut_between_characters(letter):
  line = "x" + letter * 9_000
  trained = tokenizers.build("subword(size=300)").train([line])
  assert trained.decode(trained.encode(line)) == line
  assert any(letter * 4 in piece for piece in trained.pieces)


def test_the_longest_line_that_is_read_whole():
  # Of 4,192 bytes; the pieces of a longer one start with a space, as lines do.
  whole, cut = ("b" * 4191 + "a" * n for n in (1, 2))
  for line, pieces in ((whole, [whole]), (cut, ["b" * 4191 + "a", "a"])):
    one = tokenizers.build("subword(size=300)").train([line])
    same = tokenizers.build("subword(size=300)").train(pieces)
    assert one.fingerprint == same.fingerprint


def test_texts_without_long_lines_keep_their_vocabulary():
  # Recorded before long lines were cut.
  trained = tokenizers.build("subword(size=400)").train(lines(200))
  assert trained.fingerprint[:16] == "56fdb47adb352efe"


def test_what_is_left_out_is_counted_and_said(tmp_path, capsys):
  text = "\n".join(["a line with \u2585 in it", "", *lines(200)])
  (tmp_path / "text.txt").write_text(text, encoding="utf-8")
  path = str(tmp_path / "text.txt")
  task = tasks.build(f"tokens({path!r}, window=32, scored=4, tokenizer={SPEC!r})")
  _, facts = train.load(task)
  said = facts["vocabulary_text"]
  assert (said["left_out"], said["left_out_bytes"]) == (1, 21)
  assert "from 1 of the lines" in facts["notes"][0] and "U+2585" in facts["notes"][0]
  assert capsys.readouterr().out == f"note: {facts['notes'][0]}\n"
