"""Folders of weights that would hang, fill the memory or read other files."""

import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_interop import recorded, saved

from transformer_jax import interop
from transformer_jax.interop import size_limits
from transformer_jax.interop.checkpoint_files import HEADER_BYTES, MOST_TENSORS


@pytest.fixture
def gpt2(tmp_path):
  saved(tmp_path, "gpt2")
  return tmp_path


def refused(folder):
  with pytest.raises(ValueError) as caught:
    interop.load(folder)
  assert type(caught.value) is ValueError
  return str(caught.value)


def say(folder, **words):
  config, _, _ = recorded("gpt2")
  (folder / "config.json").write_text(json.dumps(config | words))


@pytest.mark.parametrize("many", [10**4, 10**9, 10**17])
@pytest.mark.parametrize("case", ["gpt2", "t5_v10", "bart", "gemma2", "distilbert"])
def test_more_layers_than_the_weights_have_are_refused_before_any_is_made(
  tmp_path, case, many
):
  saved(tmp_path, case)
  config = json.loads((tmp_path / "config.json").read_text())
  words = [word for word in size_limits.LAYERS if word in config]
  assert words
  for word in words:
    (tmp_path / "config.json").write_text(json.dumps(config | {word: many}))
    assert f"config.json says {word}={many}" in refused(tmp_path)
    with pytest.raises(ValueError, match=f"{word}={many}"):
      interop.architecture(config | {word: many})


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
  ("case", "word"),
  [("olmo", "hidden_size"), ("llama", "head_dim"), ("gpt2", "n_embd"),
   ("gpt2", "vocab_size"), ("t5_v10", "d_kv"), ("llama", "num_attention_heads")],
)  # fmt: skip
def test_a_width_that_no_tensor_has_makes_no_array(tmp_path, case, word):
  saved(tmp_path, case)
  config = json.loads((tmp_path / "config.json").read_text())
  (tmp_path / "config.json").write_text(json.dumps(config | {word: 10**9}))
  said = refused(tmp_path)
  assert f"config.json says {word}=1000000000, and the largest tensor has" in said


def test_one_layer_more_than_there_is(gpt2):
  config, _, _ = recorded("gpt2")
  say(gpt2, n_layer=config["n_layer"] + 1)
  assert f"the weights have {config['n_layer']} layers" in refused(gpt2)


@pytest.mark.parametrize(
  "name",
  ["../other.safetensors", "/etc/passwd", "/etc/x.safetensors", "a/b.safetensors", "..",
   "a\\b.safetensors", "", 3, None, ["a.safetensors"], "a\n.safetensors", "pickle.bin"],
)  # fmt: skip
def test_an_index_names_files_of_its_folder_only(tmp_path, name):
  folder = tmp_path / "model"
  folder.mkdir()
  saved(folder, "gpt2")
  os.link(folder / "model.safetensors", tmp_path / "other.safetensors")
  index = {"weight_map": {"transformer.wte.weight": name}}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))
  assert "which is no name of a safetensors file in that folder" in refused(folder)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_pipes_and_devices_are_no_files(gpt2, name, kind):
  (gpt2 / name).unlink()
  if kind == "pipe":
    os.mkfifo(gpt2 / name)
  elif kind == "device":
    (gpt2 / name).symlink_to("/dev/zero")
  else:
    (gpt2 / name).mkdir()
  why = "it is a folder" if kind == "folder" else "it is a pipe or a device, not a file"
  assert f"cannot read {gpt2 / name}: {why}" in refused(gpt2)


def test_a_link_to_a_file_is_followed(gpt2):
  """The cache of HuggingFace's hub holds such links."""
  (gpt2 / "model.safetensors").rename(gpt2 / "blob")
  (gpt2 / "model.safetensors").symlink_to(gpt2 / "blob")
  assert interop.load(gpt2).params


@pytest.mark.parametrize(
  ("text", "says"),
  [
    ("[" * 100_000, "is not JSON (more than 100 levels of brackets)"),
    ('{"a":' * 101 + "1" + "}" * 101, "is not JSON (more than 100 levels of brackets)"),
    ('{"n_layer": ' + "9" * 5000 + "}", "999999... has more than 18 digits"),
    ('{"n_layer": 1' + "0" * 18 + "}", "has more than 18 digits"),
    ('{"n_embd": 2147483648}', "the most is 2147483647"),
    ('{"x": NaN}', "NaN is no number of JSON"),
    ('{"x": -Infinity}', "-Infinity is no number of JSON"),
    ("[]", "holds no words with values"),
    ("\xff", "is not JSON"),
    (" " * (4 * 2**20 + 1), "it has 4,194,305 bytes, and 4,194,304 are read at most"),
  ],
)
def test_a_config_exceeds_no_limit(gpt2, text, says):
  (gpt2 / "config.json").write_bytes(text.encode("latin-1"))
  assert says in refused(gpt2)


def listed(folder, size, header, data=b""):
  path = folder / "model.safetensors"
  path.write_bytes(struct.pack("<Q", size) + header + data)
  return refused(folder)


def test_the_list_of_tensors_is_measured_before_it_is_read(gpt2):
  assert "(a list of tensors of 1073741824 bytes in 2)" in listed(gpt2, 2**30, b"{}")
  assert "is damaged or cut short" in listed(gpt2, 2**64 - 1, b"{}")
  most = f"{HEADER_BYTES:,} and {MOST_TENSORS:,} tensors are read at most"
  assert most in listed(gpt2, HEADER_BYTES + 1, b" " * (HEADER_BYTES + 1))
  entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
  many = json.dumps({f"h.{n}.w": entry for n in range(MOST_TENSORS + 1)}).encode()
  assert most in listed(gpt2, len(many), many)
  (gpt2 / "model.safetensors").write_bytes(b"1234")
  assert "is damaged or cut short" in refused(gpt2)


@pytest.mark.parametrize(
  "shape", [[10**18, 10**18], [2**63], [-1], [1.5], "a", [0, 10**18]]
)
def test_no_shape_takes_memory_that_the_file_has_not(gpt2, shape):
  header = {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 8]}}
  text = json.dumps(header).encode()
  assert "copy or download it again" in listed(gpt2, len(text), text, b"x" * 8)


def test_a_tensor_of_nothing_is_refused(gpt2):
  _, weights, _ = recorded("gpt2")
  nothing = {"transformer.wte.weight": np.zeros((0, 7), np.float32)}
  save_file(weights | nothing, gpt2 / "model.safetensors")
  assert "is of shape [0, 7] and holds nothing" in refused(gpt2)


def test_words_of_a_config_import_no_module(gpt2):
  for value in ("1) + os:system(", "os:system('touch never')"):
    config, _, _ = recorded("gpt2")
    with pytest.raises(ValueError):
      interop.architecture(config | {"n_positions": value})
