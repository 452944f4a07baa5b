"""What `interop` reads and writes, and what it refuses in one sentence."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_interop import CONFIGS, recorded, saved, write

from transformer_jax import interop
from transformer_jax.attention import attentions
from transformer_jax.interop.hf_config import HFConfig
from transformer_jax.positions import positions

# Their tensors lie as those of others do: each matrix by itself, or fused alike.
ALIKE = "mistral", "olmo", "olmo2", "opt", "qwen2", "qwen3", "smollm3", "cohere"
ALIKE += "gemma3", "gpt2_by_layer", "gpt_neo_local", "roberta_mlm", "t5_v10"
ALIKE += "marian_stacks", "distilbert", "gemma2", "gptj"


@pytest.mark.parametrize(
  "case",
  [pytest.param(c, marks=[pytest.mark.slow] * (c in ALIKE)) for c in sorted(CONFIGS)],
)
def test_a_round_trip_changes_no_bit(tmp_path, case):
  config, weights, _ = recorded(case)
  loaded = interop.load(saved(tmp_path, case))
  interop.save(tmp_path / "again", loaded.config, loaded.params)
  again = interop.load(tmp_path / "again")
  assert again.config == loaded.config == config
  assert again.arch == loaded.arch
  jax.tree.map(np.testing.assert_array_equal, again.params, loaded.params)
  found = load_file(tmp_path / "again" / "model.safetensors")
  # Released files have other names than parameters in some families.
  found = interop.families[config["model_type"]]().today(found)
  # What has no row in our tables: Marian's sinusoids, which are made anew.
  left_out = {name for name in weights.keys() - found.keys()}
  assert all(case == "marian" and "embed_positions" in name for name in left_out)
  assert found.keys() <= weights.keys()
  for name, x in found.items():
    np.testing.assert_array_equal(x, weights[name])


def test_a_bare_model_has_names_without_prefix_and_no_head(tmp_path):
  config, weights, _ = recorded("bert_mlm")
  config = config | {"architectures": ["BertModel"]}
  body = {n.removeprefix("bert."): w for n, w in weights.items() if "cls." not in n}
  pooler = {"pooler.dense.weight": np.ones((32, 32), np.float32)}
  numbers = {"embeddings.position_ids": np.arange(48)}
  write(tmp_path, config, body | pooler | numbers)
  params = interop.load(tmp_path).params
  assert "head" not in params
  np.testing.assert_array_equal(
    params["embedding_VD"], weights["bert.embeddings.word_embeddings.weight"]
  )


def in_two_files(folder, config, weights):
  """Writes weights as HuggingFace does when they are many."""
  (folder / "config.json").write_text(json.dumps(config))
  names = sorted(weights)
  for k, part in enumerate((names[:9], names[9:])):
    save_file({n: weights[n] for n in part}, folder / f"part{k}.safetensors")
  where = {n: f"part{int(n in names[9:])}.safetensors" for n in names}
  index = folder / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": where}))
  return index


def test_weights_in_several_files_and_in_halves_are_read_as_float32(tmp_path):
  config, weights, _ = recorded("gpt2")
  half = {n: w.astype(jnp.bfloat16) for n, w in weights.items()}
  in_two_files(tmp_path, config, half)
  found = interop.load(tmp_path).params["embedding_VD"]
  expected = half["transformer.wte.weight"].astype(np.float32)
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, expected)


def test_saving_replaces_weights_in_several_files(tmp_path):
  config, weights, _ = recorded("gpt2")
  in_two_files(tmp_path, config, weights)
  loaded = interop.load(tmp_path)
  doubled = jax.tree.map(lambda x: 2 * x, loaded.params)
  interop.save(tmp_path, config, doubled)
  jax.tree.map(np.testing.assert_array_equal, interop.load(tmp_path).params, doubled)


def test_an_index_that_lists_no_files_is_refused(tmp_path):
  config, weights, _ = recorded("gpt2")
  index = in_two_files(tmp_path, config, weights)
  (tmp_path / "part1.safetensors").unlink()
  with pytest.raises(ValueError, match="part1.safetensors is missing"):
    interop.load(tmp_path)
  for text in ("{}", "[]", '{"weight_map": ["part0.safetensors"]}'):
    index.write_text(text)
    with pytest.raises(ValueError, match="index.json .*copy it again"):
      interop.load(tmp_path)


def test_an_output_that_repeats_the_embedding_is_tied_and_another_is_not(tmp_path):
  config, weights, _ = recorded("gpt2")
  table = weights["transformer.wte.weight"]
  write(tmp_path, config, weights | {"lm_head.weight": table})
  assert interop.load(tmp_path).arch.tied
  write(tmp_path, config, weights | {"lm_head.weight": table + 1})
  loaded = interop.load(tmp_path)  # tie_word_embeddings is true there
  assert not loaded.arch.tied and not loaded.config["tie_word_embeddings"]
  np.testing.assert_array_equal(loaded.params["output_DV"], table.T + 1)


def test_a_tensor_that_should_repeat_another_and_does_not_is_refused(tmp_path):
  config, weights, _ = recorded("bert_mlm")
  other = {"cls.predictions.decoder.bias": weights["cls.predictions.bias"] + 1}
  write(tmp_path, config, weights | other)
  with pytest.raises(ValueError, match="decoder.bias should repeat cls.predictions.b"):
    interop.load(tmp_path)


def test_all_tensors_that_do_not_fit_are_one_list(tmp_path):
  config, weights, _ = recorded("gpt2")
  del weights["transformer.ln_f.bias"]
  weights["transformer.wpe.weight"] = np.zeros((7, 32), np.float32)
  weights["transformer.h.0.adapter.weight"] = np.zeros(3, np.float32)
  write(tmp_path, config, weights)
  with pytest.raises(ValueError) as error:
    interop.load(tmp_path)
  assert str(error.value).splitlines()[1:] == [
    "  missing transformer.ln_f.bias",
    "  unknown transformer.h.0.adapter.weight",
    "  transformer.wpe.weight is [7, 32], and config.json makes it [48, 32]",
  ]


def test_files_that_cannot_be_read_are_said_in_one_sentence(tmp_path):
  path = saved(tmp_path, "gpt2") / "model.safetensors"
  whole = path.read_bytes()
  (size,) = struct.unpack("<Q", whole[:8])
  too_long = struct.pack("<Q", size + 9) + whole[8:]
  cut = [whole[:end] for end in (len(whole) - 5, 100, 4, 0)]
  for content in (*cut, whole + b"more", too_long, b"\0" * 64):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or cut short"):
      interop.load(path.parent)
  path.unlink()
  with pytest.raises(ValueError, match="weights are read from safetensors only"):
    interop.load(path.parent)
  for text, reason in (
    ("{", "is not JSON"),
    ("[1]", "holds no words"),
    ("", "not JSON"),
  ):
    (path.parent / "config.json").write_text(text)
    with pytest.raises(ValueError, match=reason):
      interop.load(path.parent)
  (path.parent / "config.json").unlink()
  with pytest.raises(ValueError, match="config.json is missing"):
    interop.load(path.parent)


def test_weights_of_eight_bits_are_refused(tmp_path):
  config, weights, _ = recorded("gpt2")
  eighth = weights["transformer.wte.weight"].astype(jnp.float8_e4m3fn)
  write(tmp_path, config, weights | {"transformer.wte.weight": eighth})
  with pytest.raises(ValueError, match="transformer.wte.weight is of type F8_E4M3"):
    interop.load(tmp_path)


REFUSED = [  # a recorded model, what its config.json says instead, and the answer
  ("gpt2", {"model_type": "gptneox"}, "'gptneox', whose weights are not read here"),
  ("gpt2", {"model_type": None}, "whose weights are not"),
  ("gpt2", {"model_type": ["gpt2"]}, "whose weights are not"),
  ("gpt2", {"quantization_config": {"bits": 4}}, "are quantized"),
  ("gpt2", {"activation_function": "mish"}, "activation_function='mish'"),
  ("gpt2", {"activation_function": ["relu"]}, r"activation_function=\['relu'\]"),
  ("gptj", {"scale_attn_weights": False}, "scale_attn_weights=False"),
  ("deepseek_v3", {"attention_bias": True}, "attention_bias=True"),
  ("deepseek_v3", {"num_key_value_heads": 2}, "num_key_value_heads=2 and"),
  ("gemma3n_text", {"num_kv_shared_layers": 4}, "num_kv_shared_layers=4 of 4 layers"),
  ("gemma3n_text", {"num_kv_shared_layers": 3}, "of its kind; write fewer"),
  (
    "gemma3n_text",
    {"activation_sparsity_pattern": [0.5]},
    "activation_sparsity_pattern of 1 layers, and there are 4",
  ),
  ("gemma3n_text", {"intermediate_size": [32, 32, 32, 40]}, "layers of several widths"),
  ("gemma3n_text", {"altup_active_idx": 3}, "active is 3; write a stream, from 0 to 2"),
  (
    "gemma3n_text",
    {"rope_parameters": {"full_attention": {"rope_type": "dynamic", "factor": 2.0}}},
    "only fixed rotations",
  ),
  ("smollm3", {"no_rope_layers": [1]}, r"no_rope_layers=\[1\]; write 1 for each of"),
  ("smollm3", {"use_sliding_window": True}, "use_sliding_window=True"),
  ("smollm3", {"layer_types": ["sliding_attention"] * 2}, "layer_types="),
  ("gpt2", {"add_cross_attention": True}, "add_cross_attention=True"),
  ("gpt2", {"n_embd": None}, "no 'n_embd'; write it there"),
  ("gpt2", {"n_embd": "32"}, "n_embd='32'; write a whole number"),
  ("gpt2", {"n_layer": 0}, "n_layer=0; write a whole number"),
  ("gpt_neo_local", {"num_layers": 0}, "num_layers=0; write a whole number"),
  ("distilbert", {"n_layers": 0}, "n_layers=0; write a whole number"),
  ("gpt2", {"n_head": 5}, "width 32 does not divide into 5 heads"),
  ("gpt_neo_local", {"attention_types": [[["sparse"], 2]]}, "attention_types='sparse'"),
  ("gpt_neo_local", {"attention_layers": ["local"] * 2}, r"attention_layers=\['local'"),
  ("gpt_neo_local", {"attention_types": [[["global"], 3]]}, "3 layers a kind"),
  ("gpt_neo_local", {"attention_types": [["global"]]}, "write groups of kinds"),
  ("gpt2", {"architectures": 5}, "architectures=5; write a list"),
  ("qwen2", {"layer_types": 7}, "layer_types=7; write a list"),
  ("qwen2", {"rms_norm_eps": "tiny"}, "rms_norm_eps='tiny'; write a number"),
  ("llama", {"attention_bias": "in"}, "attention_bias='in'"),
  ("roberta_mlm", {"pad_token_id": "1"}, "pad_token_id='1'; write a number"),
  ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
  ("mistral", {"num_experts": 8}, "num_experts=8, which nothing here follows"),
  ("llama", {"num_key_value_heads": 3}, "3 groups of keys do not divide 4 heads"),
  ("llama", {"rope_parameters": {"rope_type": "cubic"}}, "rope_type='cubic'"),
  ("llama", {"rope_parameters": {"rope_type": "linear"}}, "no 'factor'"),
  ("llama", {"rope_parameters": 1e4}, "rope_parameters=10000.0; write words"),
  (
    "llama",
    {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "mscale_all": 0.7}},
    "mscale_all of rotary positions of the kind yarn",
  ),
  (
    "gemma2",
    {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
    "full_attention of rotary positions",
  ),
  ("gemma2", {"layer_types": ["full_attention", "chunked"]}, "layer_types='chunked'"),
  ("qwen2", {"use_sliding_window": True}, "use_sliding_window=True"),
  ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types="),
  ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before=False"),
  ("falcon_mqa", {"alibi": True}, "alibi=True"),
  ("mpt", {"attn_config": {"qk_ln": True}}, "qk_ln=True"),
  ("bert_mlm", {"position_embedding_type": "relative_key"}, "position_embedding_type="),
  ("deberta_v2", {"conv_kernel_size": 3}, "conv_kernel_size=3"),
  ("deberta_v2", {"share_att_key": False}, "share_att_key=False"),
  ("deberta_v2", {"relative_attention": None}, "relative_attention=False"),
  ("deberta_v2", {"position_biased_input": True}, "position_biased_input=True"),
  ("deberta_v2", {"pos_att_type": "c2p"}, "pos_att_type=.c2p., which is not read"),
  ("t5_v10", {"feed_forward_proj": "gated-mish"}, "feed_forward_proj='gated-mish'"),
  ("marian", {"decoder_attention_heads": 5}, "width 32 does not divide into 5 heads"),
  ("bart", {"decoder_ffn_dim": 40}, r"decoder.layers.0.fc1.weight is \[24, 32\]"),
  ("modernbert", {"layer_types": ["full_attention"]}, "layer_types of 1 layers, and"),
  ("modernbert", {"local_rope_theta": None}, "local_rope_theta=null, which is another"),
  ("modernbert", {"classifier_pooling": "max"}, "classifier_pooling='max'"),
  ("modernbert", {"hidden_activation": "relu"}, "hidden_activation='relu'"),
  ("modernbert", {"rope_parameters": {"rope_theta": 1.0}}, "says rope_theta=1.0"),
  ("modernbert", {"local_attention": 0}, "local_attention=0; write a whole number"),
  ("olmo_hybrid", {"hidden_act": "gelu"}, "hidden_act='gelu'"),
  ("olmo_hybrid", {"layer_types": ["linear", "full_attention"]}, "types='linear', wh"),
  ("vit", {"image_size": [16]}, r"image_size=\[16\]; write a whole number"),
  ("vit", {"image_size": [16, 0]}, "image_size=0; write a whole number"),
]


@pytest.mark.parametrize("case, changes, message", REFUSED)
def test_what_is_not_served_is_refused(tmp_path, case, changes, message):
  with pytest.raises(ValueError, match=message):
    interop.load(saved(tmp_path, case, **changes))


def test_every_word_that_a_family_checks_is_refused_with_another_value():
  """No family accepts a value that it does not serve of a word that it asks for."""
  for config in CONFIGS.values():
    aliases = interop.families[config["model_type"]].aliases
    for word in asked(config):
      # An alias would win.
      own = {w: x for w, x in config.items() if aliases.get(w) != word}
      with pytest.raises(ValueError, match=f"{word}="):
        interop.architecture(own | {word: "something else"})


def asked(config):
  """Returns the words whose values are compared with those that are served."""
  found = []

  class Watched(HFConfig):
    def choose(self, word, choices, default=None):
      found.extend([word] if "model_type" in self.config else [])
      return super().choose(word, choices, default)

    def same(self, word, other):
      found.append(word)
      super().same(word, other)

  family = interop.families[config["model_type"]]()
  family.parts(Watched(family.words(config).config))
  return {*found} - {"layer_types", "attention_types"}


def test_parameters_of_another_model_are_not_saved(tmp_path):
  loaded = interop.load(saved(tmp_path, "gpt2"))
  config = loaded.config | {"n_layer": 3, "n_positions": 50}
  with pytest.raises(ValueError, match=r"(?s)layer_2/.* is missing.*table_LD is \(48"):
    interop.save(tmp_path / "other", config, loaded.params)
  assert not (tmp_path / "other").exists()


def test_smollm3_has_layers_without_positions_where_config_says():
  config = {"model_type": "smollm3"}
  rope, none = "rope(base=2000000.0)", "none"
  long = {"no_rope_layers": [1, 0, 0] * 13}
  for words, kinds in (
    ({}, [rope, rope, rope, none] * 9),
    ({"no_rope_layer_interval": 2, "no_rope_layers": None}, [rope, none] * 18),
    (long | {"no_rope_layer_interval": 2}, [rope, none, none] * 12),
  ):
    position = interop.architecture(config | words).position
    found = [position.layer(n).encoding for n in range(36)]
    assert found == [positions.build(kind) for kind in kinds]


def test_modernbert_is_read_in_both_styles():
  """The released ModernBERT-base has the old words."""
  linear = {"rope_type": "linear", "factor": 2.0}
  old = dict(global_rope_theta=1.6e5, local_rope_theta=1e4, rope_scaling=linear)
  old |= dict(global_attn_every_n_layers=3)
  kinds = {"full_attention": 1.6e5, "sliding_attention": 1e4}
  new = {kind: linear | {"rope_theta": base} for kind, base in kinds.items()}
  listed = [[*kinds][n % 3 > 0] for n in range(22)]
  read = lambda words: interop.architecture({"model_type": "modernbert"} | words)
  arch = read(old)
  assert arch == read({"rope_parameters": new, "layer_types": listed})
  for n in range(22):
    base, window = (1e4, "window(65)") if n % 3 else (1.6e5, "multihead")
    position, attention = arch.layer("encoder", n)
    assert position.encoding == positions.build(f"rope_linear(factor=2.0, base={base})")
    assert attention == attentions.build(f"multihead + {window}")
  assert read({}).position.layer(3).encoding == positions.build("rope(base=160000.0)")


def test_a_classifier_of_modernbert_must_name_its_class(tmp_path):
  """Texts, tokens and spans have tensors of the same names."""
  config, weights, _ = recorded("modernbert")
  more = {"classifier.weight": np.ones((2, 32), np.float32)}
  more["classifier.bias"] = np.ones(2, np.float32)
  weights = {n: x for n, x in weights.items() if not n.startswith("decoder.")} | more
  nameless = {word: x for word, x in config.items() if word != "architectures"}
  write(tmp_path, nameless, weights)
  with pytest.raises(ValueError, match="ForQuestionAnswering all have classifier"):
    interop.load(tmp_path)
  write(
    tmp_path, config | {"architectures": ["ModernBertForTokenClassification"]}, weights
  )
  assert interop.load(tmp_path).arch.classes == 2


def test_gemma_3_is_read_in_both_styles():
  words = {"model_type": "gemma3_text", "num_hidden_layers": 12}
  linear = {"rope_type": "linear", "factor": 8.0}
  old = {"rope_theta": 3e6, "rope_local_base_freq": 2e4, "rope_scaling": linear}
  new = {
    "full_attention": linear | {"rope_theta": 3e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
  }
  usual = ["sliding_attention"] * 5 + ["full_attention"]
  for more in (
    old | {"sliding_window_pattern": 6},
    {"rope_parameters": new, "layer_types": usual * 2},
  ):
    arch = interop.architecture(words | more)
    for n in range(12):
      full = n in (5, 11)
      position, attention = (x.layer(n) for x in (arch.position, arch.attention))
      spec = "rope_linear(factor=8.0, base=3e6)" if full else "rope(base=2e4)"
      assert position.encoding == positions.build(spec)
      assert ("Window" in repr(attention)) != full
  for wrong, said in (
    ({"rope_parameters": linear}, "rope_parameters says rope_type='linear'"),
    ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
  ):
    with pytest.raises(ValueError, match=said):
      interop.architecture(words | wrong)


def test_longrope_is_read_with_all_its_words():
  lists = {"short_factor": [1.0, 1.5], "long_factor": [2.0, 4.0]}
  config = {"model_type": "phi3", "hidden_size": 16, "num_attention_heads": 4}
  config |= {"max_position_embeddings": 64, "original_max_position_embeddings": 16}
  for kind, more, gain in (
    ("longrope", {}, np.sqrt(1 + np.log(4) / np.log(16))),
    ("su", {"factor": 2.0}, np.sqrt(1 + np.log(2) / np.log(16))),
    ("yarn", {"attention_factor": 1.2}, 1.2),
  ):
    scaling = lists | more | {"type": kind}
    arch = interop.architecture(config | {"rope_scaling": scaling})
    assert (arch.position.short, arch.position.long) == ((1.0, 1.5), (2.0, 4.0))
    found = arch.position.gain(arch.position.constants(arch.dims))
    np.testing.assert_allclose(found, gain, rtol=1e-6)
  for wrong, said in (
    ({"attention_factor": 0.9}, "attention_factor=0.9 of longrope"),
    ({"long_factor": [2.0, "4"]}, "long_factor='4'; write a number"),
    ({"long_factor": []}, "config.json has no 'long_factor'"),
    ({"short_factor": None}, "config.json has no 'short_factor'"),
    ({"mscale": 0.7}, "mscale of rotary positions of the kind longrope"),
  ):
    scaling = lists | {"type": "longrope"} | wrong
    with pytest.raises(ValueError, match=said):
      interop.architecture(config | {"rope_scaling": scaling})


def test_scalings_of_rope_are_read_in_both_styles():
  old = {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 500.0}
  new = {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}
  yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
  llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
  llama3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}
  outside = {"rope_scaling": yarn, "original_max_position_embeddings": 16}
  slow = {k: x for k, x in yarn.items() if "max" not in k} | {"beta_slow": 2.0}
  dynamic = {"type": "dynamic", "factor": 2.0}
  config = {n: x for n, x in CONFIGS["llama"].items() if n != "rope_parameters"}
  for words, spec in (
    (old, "rope_linear(factor=4.0, base=500.0)"),
    ({"rope_parameters": new}, "rope_linear(factor=4.0, base=500.0)"),
    ({"rope_parameters": yarn}, "rope_yarn(factor=4.0, original=32)"),
    (outside, "rope_yarn(factor=4.0, original=16)"),
    ({"rope_scaling": slow}, "rope_yarn(factor=4.0, original=64, slow=2.0)"),
    ({"rope_scaling": llama3}, "rope_llama3(base=1e4, factor=8.0, original=32)"),
    ({"rope_scaling": dynamic}, "rope_dynamic(factor=2.0, original=64)"),
    ({"rope_scaling": None}, "rope"),
  ):
    found = interop.architecture(config | words).position
    assert found == positions.build(spec)
  older = {n: x for n, x in CONFIGS["gpt_neox"].items() if n != "rope_parameters"}
  found = interop.architecture(older | {"rotary_pct": 0.5, "rotary_emb_base": 500})
  assert found.position == positions.build("rope(base=500, fraction=0.5)")


def test_two_scales_of_yarn_are_a_quotient_as_in_llama():
  """Scores have no scale of their own, which they have in DeepSeek's code."""
  yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
  of = lambda scale: 0.1 * scale * np.log(4) + 1
  for more, gain in (
    ({}, of(1)),
    ({"mscale": 0.7}, of(1)),
    ({"mscale": 0.7, "mscale_all_dim": 0.4}, of(0.7) / of(0.4)),
    ({"mscale": 0.7, "mscale_all_dim": 0.4, "attention_factor": 0.8}, 0.8),
  ):
    found = interop.architecture(CONFIGS["llama"] | {"rope_parameters": yarn | more})
    np.testing.assert_allclose(found.position.gain({}), gain)
    assert found.position.temperature({}, None) == 1


CHECKPOINTS = {  # words of well-known checkpoints besides those that are read
  "llama": dict(is_llama_config=True, rope_interleaved=False, pretraining_tp=1),
  "bert_mlm": dict(gradient_checkpointing=False, pooler_type="first_token_transform"),
  "distilbert": dict(tie_weights_=True, sinusoidal_pos_embds=False, output_past=True),
  "gpt2": dict(n_ctx=1024, summary_type="cls_index", task_specific_params={"a": {}}),
  "bloom": dict(masked_softmax_fusion=True, offset_alibi=100, skip_bias_add=True),
  "bart": dict(normalize_embedding=True, static_position_embeddings=False, num_beams=4),
  "marian": dict(normalize_embedding=False, static_position_embeddings=True),
  "mpt": dict(
    init_config={"name": "kaiming_normal_"}, verbose=0, norm_type="layernorm"
  ),
  "opt": dict(prefix="</s>", layerdrop=0.1, activation_dropout=0.0),
  "gemma2": dict(cache_implementation="hybrid", hidden_act="gelu_pytorch_tanh"),
  "qwen2": dict(use_mrope=False, sliding_window=32768, max_window_layers=21),
  "t5_v10": dict(n_positions=512, output_past=True, decoder_start_token_id=0),
  "modernbert": dict(
    global_attn_every_n_layers=3,
    layer_norm_eps=1e-5,
    position_embedding_type="absolute",
    repad_logits_with_grad=False,
    sparse_prediction=False,
    reference_compile=None,
    classifier_pooling="mean",
  ),
  "vit": dict(encoder_stride=16, id2label={str(n): str(n) for n in range(10)}),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_words_of_well_known_checkpoints_are_passed_over(case):
  config = CONFIGS[case]
  found = interop.architecture(config | CHECKPOINTS[case])
  assert found == interop.architecture(config)


def test_deberta_3_is_read_as_it_was_released(tmp_path):
  config, weights, _ = recorded("deberta_v2")
  words = dict(pos_att_type="p2c|c2p", max_relative_positions=-1, position_buckets=256)
  words |= dict(max_position_embeddings=512, architectures=["DebertaV2Model"])
  found = interop.architecture(config | words).position
  spec = "deberta(512, 256, norm=True, released=True, shared=True)"
  assert found == positions.build(spec)
  body = {name: w for name, w in weights.items() if "cls." not in name}
  other = {"lm_predictions.lm_head.bias": np.ones(97, np.float32)}
  write(tmp_path, config | {"architectures": ["DebertaV2Model"]}, body | other)
  assert "head" not in interop.load(tmp_path).params


def test_older_names_of_vit_are_read(tmp_path):
  config, weights, _ = recorded("vit")
  old = {"o_proj": "output.dense"}
  old |= {f"{n[0]}_proj": f"attention.{n}" for n in ("query", "key", "value")}
  attention = {f"attention.{n}": f"attention.{m}" for n, m in old.items()}
  old = attention | {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
  older = {}
  for name, x in weights.items():
    for new, before in old.items():
      name = name.replace(f".{new}.", f".{before}.")
    older[name.replace("vit.layers.", "vit.encoder.layer.")] = x
  assert "vit.encoder.layer.1.attention.attention.query.bias" in older
  write(tmp_path, config, older)
  params = interop.load(tmp_path).params
  write(tmp_path, config, weights)
  expected = interop.load(tmp_path).params
  jax.tree.map(np.testing.assert_array_equal, params, expected)
