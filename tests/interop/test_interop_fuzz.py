"""Damaged and hostile folders of weights: one sentence each, soon, in little memory."""

import functools
import json
import random
import struct
import time
import tracemalloc

import pytest
from safetensors.numpy import save
from test_interop import CONFIGS, recorded

from transformer_jax import interop
from transformer_jax.interop import checkpoint_files
from transformer_jax.spec import SpecError

NASTY = [None, True, False, 0, -1, 1, 2, 3, 7, 10**4, 10**9, 2**31, 2**63, 10**18,
         10**40, 0.5, -0.5, 1e308, float("nan"), float("inf"), "", "a", "2", "relu",
         "(",
         "os:system('touch /tmp/never')", "2) + window(4", [], [1], [[]], ["a", "b"],
         [None], {}, {"a": 1}, {"rope_type": "yarn"}, "\x1b[2J", "\0",
         "Ω" * 1000]  # fmt: skip
SECONDS = 5
ROOM = 2**20  # what reading may take besides twice the files: the objects of Python


@functools.lru_cache
def folder_of(case):
  """Returns the config and the file of a recorded model."""
  config, weights, _ = recorded(case)
  return config, save(weights, {"format": "pt"})


def changed_words(random, config):
  """Returns a config of which some values, names or numbers are others."""
  config = json.loads(json.dumps(config))
  for _ in range(random.choice([1, 1, 1, 2, 3])):
    words = config
    inner = [w for w in words if isinstance(words[w], dict) and words[w]]
    if inner and random.random() < 0.4:
      words = words[random.choice(inner)]
    word = random.choice(sorted(words) or ["new"])
    kind = random.random()
    if kind < 0.1:
      words.pop(word, None)
    elif kind < 0.2:
      words[word + random.choice("s_ \n")] = random.choice(NASTY)
    elif kind < 0.25:
      words["model_type"] = random.choice([*CONFIGS.values()])["model_type"]
    else:
      words[word] = random.choice(NASTY)
  return json.dumps(config).encode()


def changed_bytes(random, content, end):
  """Returns bytes of which some of the first `end` are others, more or fewer."""
  content = bytearray(content)
  for _ in range(random.choice([1, 1, 2, 8])):
    at, kind = random.randrange(min(end, len(content))), random.random()
    if kind < 0.5:
      content[at] = random.choice(
        [random.randrange(256), ord(random.choice('{}[]",:0'))]
      )
    elif kind < 0.7:
      del content[at : at + random.choice([1, 8, 100])]
    elif kind < 0.9:
      content[at:at] = random.choice([b"9" * 30, b"[" * 300, b"\0", b"null", b'{"a":'])
    else:
      del content[at:]
    if not content:
      break
  return bytes(content)


def changed_header(random, content):
  """Returns a file whose list of tensors says something else, and is well-formed."""
  size = struct.unpack("<Q", content[:8])[0]
  header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
  for _ in range(random.choice([1, 1, 2])):
    name = random.choice(sorted(header))
    entry, kind = header[name], random.random()
    if kind < 0.15:
      header[random.choice(["a", "h.0", "\x1b]0;", "../a", name * 40])] = entry
    elif kind < 0.3:
      header.pop(name)
    elif kind < 0.4 or not isinstance(entry, dict) or "shape" not in entry:
      header[name] = random.choice(NASTY)
    elif kind < 0.6 and entry["shape"]:
      entry["shape"][random.randrange(len(entry["shape"]))] = random.choice(NASTY)
    elif kind < 0.75:
      entry["data_offsets"][random.randrange(2)] = random.choice(NASTY)
    elif kind < 0.9:
      entry["dtype"] = random.choice(["I64", "F8_E4M3", "F4", "C64", "BF16", "BOOL", 3])
    else:
      entry.pop(random.choice([*entry]))
    if len(header) < 2:
      break
  text = json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + data


def folder(random, path):
  """Writes a folder with something wrong; most often it is one thing."""
  config, weights = folder_of(random.choice(sorted(CONFIGS)))
  said, kind = json.dumps(config).encode(), random.random()
  if kind < 0.4:
    said = changed_words(random, config)
  elif kind < 0.5:
    said = changed_bytes(random, said, len(said))
  elif kind < 0.75:
    weights = changed_header(random, weights)
  elif kind < 0.95:
    size = struct.unpack("<Q", weights[:8])[0]
    weights = changed_bytes(random, weights, 8 + size)
  else:
    size = random.choice([0, 1, 2**31, 2**63, 2**64 - 1, len(weights)])
    weights = struct.pack("<Q", size) + weights[8:]
  (path / "config.json").write_bytes(said)
  (path / "model.safetensors").write_bytes(weights)
  return len(said) + len(weights)


def attempt(path):
  """Returns the sentence with which a folder is refused, or "" where it is read."""
  try:
    interop.load(path)
  except ValueError as error:
    # Others of its kind, as of Unicode, would be traces that nobody wrote.
    assert type(error) in (ValueError, SpecError), repr(error)
    assert str(error).strip()
    return str(error)
  return ""


def peak_of_reading(path):
  """Returns the bytes that reading the files took at most."""
  tracemalloc.start()
  try:
    checkpoint_files.read(path)
  except ValueError:
    pass
  finally:
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
  return peak


def fuzz(path, seed, count):
  """Tries folders; returns how many were refused."""
  refused = 0
  for n in range(count):
    size, where = folder(random.Random(f"{seed} {n}"), path), f"folder {n} of {seed}"
    start = time.thread_time()
    try:
      refused += bool(attempt(path))
    except BaseException as error:
      error.add_note(where)
      raise
    assert time.thread_time() - start < SECONDS, where
    assert peak_of_reading(path) < 2 * size + ROOM, where
  return refused


def test_a_hundred_damaged_folders_are_refused_in_a_sentence(tmp_path):
  assert 80 < fuzz(tmp_path, "quick", 100) < 100  # some changes change nothing


@pytest.mark.slow  # about eight minutes of one core
@pytest.mark.timeout(3600)
def test_ten_thousand_damaged_folders_are_refused_in_a_sentence(tmp_path):
  assert 8_000 < fuzz(tmp_path, "all", 10_000) < 10_000


def test_a_word_of_an_unexpected_kind_is_a_sentence():
  config, _ = folder_of("qwen2")
  for value in (True, 3, [[]], {"a": 1}):
    with pytest.raises(ValueError, match="config.json"):
      interop.architecture(config | {"layer_types": value})
