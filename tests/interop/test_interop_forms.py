"""Classes of HuggingFace's models as `save_pretrained` writes them, and older forms."""

import json

import jax
import numpy as np
import pytest
from recorded_models import FOLDER, NEAR, cases, error, outputs, write
from safetensors.numpy import save_file

from transformer_jax import interop

FORMS, LOGITS = cases("forms")
DEFAULTS = json.loads((FOLDER / "defaults.json").read_text("utf-8"))


CONFIGS = json.loads((FOLDER / "configs.json").read_text("utf-8")).values()
RECORDED = {(c["model_type"], *c["architectures"]) for c in CONFIGS}


def form_of(case):
  """Returns a case, slow where others read the same rows for its output.

  Those of another family, or a recorded model of the same class in test_interop.py.
  """
  config = FORMS[case]["config"]
  kind, _, ending = case.partition("/")
  alike = {"gpt_neo", "gptj", "mpt", "mistral", "qwen2", "qwen3", "olmo", "olmo2"}
  alike |= {"xlm-roberta", "mt5", "opt", "falcon", "bloom"}
  alike |= {"smollm3", "cohere", "gemma3_text", "phi3", "deepseek_v3"}
  # Heads of these are read as those of BERT and T5.
  alike |= (
    {"distilbert", "deberta-v2", "roberta", "marian"} if ending != "Model" else {*()}
  )
  again = kind in alike and ending in OUTPUTS
  recorded = (config["model_type"], *config["architectures"]) in RECORDED
  again |= recorded and ending.startswith(("For", "LMHead", "MTModel"))
  return pytest.param(case, marks=[pytest.mark.slow] * again)


OUTPUTS = {"Model", "ForSequenceClassification", "ForTokenClassification"}
OUTPUTS |= {"ForQuestionAnswering", "EncoderModel"}


@pytest.mark.parametrize("case", [form_of(case) for case in sorted(FORMS)])
def test_every_class_is_read_as_it_is_saved(tmp_path, case):
  form = FORMS[case]
  write(tmp_path, form["config"], form["tensors"])
  loaded = interop.load(tmp_path, core="dense")
  ending = case.partition("/")[2]
  assert error(outputs(loaded, ending), LOGITS[case]) < NEAR
  assert loaded.config == form["config"]


def test_every_family_has_all_its_classes_recorded():
  for kind in interop.families:
    endings = [case.partition("/")[2] for case in FORMS if case.startswith(f"{kind}/")]
    for form in interop.families[kind]().outputs:
      assert {*form.endings} & {*endings}, (kind, form.endings)


def changed(folder, case, rename=lambda name: name, words=(), drop=(), without=()):
  """Returns what a form gives when its folder is written in an older way."""
  form = FORMS[case]
  weights = write(folder, form["config"], form["tensors"])
  weights = {rename(n): x for n, x in weights.items() if not n.startswith(tuple(drop))}
  config = {w: x for w, x in (form["config"] | dict(words)).items() if w not in without}
  save_file(weights, folder / "model.safetensors")
  (folder / "config.json").write_text(json.dumps(config))
  return interop.load(folder, core="dense")


def check(loaded, case):
  assert error(outputs(loaded, case.partition("/")[2]), LOGITS[case]) < NEAR


def gamma(name):
  """bert-base-uncased has these names."""
  name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
  return name.replace("LayerNorm.bias", "LayerNorm.beta")


def embed_out(name):
  """Older releases of GPT-NeoX have this name."""
  return name.replace("lm_head", "embed_out")


def bare(name):
  """The checkpoints of GPT-2 have no prefix."""
  return name.removeprefix("transformer.")


def first_copy(name):
  """Of tensors that are one, any may have been saved."""
  return name.replace("shared", "encoder.embed_tokens")


SILENT = ["architectures"]
OF_BLOOM = dict(n_embed=16, num_attention_heads=2, offset_alibi=100, seq_length=2048)
T5 = "t5/ForConditionalGeneration"
OLDER = [  # a form, and how older releases, or other people, wrote its folder
  ("bert/ForMaskedLM", dict(rename=gamma)),
  ("bert/ForMaskedLM", dict(without=SILENT)),
  ("bert/Model", dict(without=SILENT)),
  ("bert/ForSequenceClassification", dict(without=SILENT)),
  ("distilbert/ForTokenClassification", dict(without=SILENT)),
  ("gpt2/LMHeadModel", dict(rename=bare)),
  ("gpt2/LMHeadModel", dict(without=SILENT)),
  ("gemma2/ForCausalLM", dict(without=SILENT)),
  ("llama/Model", dict(without=SILENT)),
  ("vit/Model", dict(without=SILENT)),
  ("vit/ForImageClassification", dict(without=SILENT)),
  ("bloom/ForCausalLM", dict(words=OF_BLOOM, without=["hidden_size", "n_head"])),
  ("gpt_neox/ForCausalLM", dict(rename=embed_out)),
  (
    "t5/v1.1",
    dict(words=dict(tie_word_embeddings=False), without=["scale_decoder_outputs"]),
  ),
  (T5, dict(words=dict(architectures=["T5WithLMHeadModel"]))),
  (T5, dict(without=["dense_act_fn", "is_gated_act", "scale_decoder_outputs"])),
  (T5, dict(rename=first_copy)),
]


AGAIN = "gemma2/ForCausalLM", "vit/Model", "vit/ForImageClassification", "llama/Model"
AGAIN += "distilbert/ForTokenClassification", "bert/ForSequenceClassification"


def older(case, how):
  """Marks as slow what only leaves out the class, as others do."""
  again = how == dict(without=SILENT) and case in AGAIN
  return pytest.param(case, how, marks=[pytest.mark.slow] * again)


@pytest.mark.parametrize("case, how", [older(*form) for form in OLDER])
def test_older_forms_give_the_same_numbers(tmp_path, case, how):
  check(changed(tmp_path, case, **how), case)


def test_bart_that_was_saved_bare_writes_too(tmp_path):
  """facebook/bart-base: names without a prefix, and no bias of the logits."""
  config, tensors = (FORMS["bart/Model"][name] for name in ("config", "tensors"))
  assert "shared.weight" in tensors and "final_logits_bias" not in tensors
  write(tmp_path, config, tensors)
  bare = interop.load(tmp_path)
  changed = config | {"architectures": ["BartForConditionalGeneration"]}
  write(tmp_path, changed, tensors)
  loaded = interop.load(tmp_path)
  assert not loaded.params["head"]["shift_V"].any() and "head" not in bare.params
  np.testing.assert_array_equal(
    loaded.params["embedding_VD"], bare.params["embedding_VD"]
  )


def test_flan_t5_has_an_output_of_its_own(tmp_path):
  form = FORMS["t5/v1.1"]
  assert "lm_head.weight" not in form["tensors"]
  tensors = form["tensors"] | {"lm_head.weight": form["tensors"]["shared.weight"]}
  write(tmp_path, form["config"], tensors)  # another matrix: weights are of names
  loaded = interop.load(tmp_path)
  assert not loaded.arch.tied and loaded.arch.head.power == 0
  interop.save(tmp_path / "again", loaded.config, loaded.params)
  again = interop.load(tmp_path / "again")
  assert again.arch == loaded.arch
  jax.tree.map(np.testing.assert_array_equal, again.params, loaded.params)


def test_a_bare_vit_says_that_it_has_no_logits(tmp_path):
  form = FORMS["vit/Model"]
  write(tmp_path, form["config"], form["tensors"])
  with pytest.raises(ValueError, match="read its states"):
    outputs(interop.load(tmp_path), "")


def test_lora_is_called_lora(tmp_path):
  (tmp_path / "adapter_config.json").write_text("{}")
  with pytest.raises(ValueError, match=r"holds a LoRA adapter.*merge_and_unload"):
    interop.load(tmp_path)
  form = FORMS["llama/ForCausalLM"]
  more = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": (2, 16)}
  write(tmp_path, form["config"], form["tensors"] | more)
  with pytest.raises(ValueError, match=r"a LoRA adapter \(base_model.*merge it"):
    interop.load(tmp_path)


@pytest.mark.parametrize("kind", sorted(interop.families))
def test_missing_words_have_the_defaults_of_the_library(kind):
  """Of all words and of each alone, in a small config and in the default one."""
  small = next(form["config"] for n, form in FORMS.items() if n.startswith(f"{kind}/"))
  assert built(DEFAULTS[kind]) == built({"model_type": kind})
  for word in DEFAULTS[kind].keys() - {"model_type"}:
    missing = {w: x for w, x in small.items() if w != word}
    assert built(missing) == built(small | {word: DEFAULTS[kind][word]}), word


def built(config):
  """Returns the architecture, or that there is none."""
  try:
    return interop.architecture(config)
  except ValueError:
    return None


@pytest.mark.parametrize("kind", sorted(interop.families))
def test_a_word_that_nothing_reads_is_refused(kind):
  config = {"model_type": kind} | FORMS[next(n for n in FORMS if n.startswith(kind))][
    "config"
  ]
  interop.architecture(config | {"unheard_of": None})
  with pytest.raises(
    ValueError, match="says unheard_of=0.5, which nothing here follows"
  ):
    interop.architecture(config | {"unheard_of": 0.5})


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "gemma2", "falcon"])
def test_a_share_of_features_that_turn_is_refused(kind):
  config = FORMS[f"{kind}/ForCausalLM"]["config"]
  interop.architecture(config | {"partial_rotary_factor": 1.0})
  with pytest.raises(ValueError, match="partial_rotary_factor=0.5"):
    interop.architecture(config | {"partial_rotary_factor": 0.5})
