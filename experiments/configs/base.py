"""All config keys with defaults and units. A config file changes some of them."""

from typing import Any

from ml_collections import ConfigDict

from experiments.setup.former_values import today


class ModelConfigDict(ConfigDict):
  """Keys of the model; former values of a key are taken as those of today.

  >>> model = ModelConfigDict()
  >>> model.remat = True
  >>> model.remat
  'full'
  """

  def __setitem__(self, key: str, value: Any) -> None:
    super().__setitem__(key, today(f"model.{key}", value))


def get_config() -> ConfigDict:
  """Returns the defaults, locked: unknown keys raise an error."""
  config = ConfigDict()
  config.task = 'text(source="stdlib")'  # see transformer_jax/data
  config.seeds = (0, 1, 2)  # of 32 bits; no number depends on which are here
  config.update(model=_model(), train=_train(), evaluate=_evaluate(), mesh=_mesh())
  return config.lock()


def _model() -> ConfigDict:
  model = ModelConfigDict()
  model.family = "transformer"  # recurrent, transformer(decoder_heads=2): see models/
  model.kind = "decoder"  # prefix_decoder, encoder, encoder_decoder: docs/reference
  model.position = "rope"  # see transformer_jax/positions
  model.attention = "multihead"  # see transformer_jax/attention/variants
  model.core = "auto"  # how attention is computed: see transformer_jax/attention/cores
  model.width = 64  # of a token's vector (D)
  model.layers = 2
  model.heads = 4  # (H)
  model.head_width = 0  # (K); 0: width / heads
  model.feedforward = 256  # hidden units of each layer (F); 0, recurrent: none
  model.feedforward_bias = False  # its projections add learned vectors
  model.feedforward_kind = "dense"  # experts(8, 2): see models/feedforward_kinds
  model.activation = "gelu"  # relu, gelu, swiglu: see transformer_jax/models/layers.py
  model.convolution = "none"  # canon('ABCD'): along the text, see models/canon.py
  model.norm = "rmsnorm"  # layernorm, batchnorm, none: see models/feature_norms.py
  model.norm_placement = "pre"  # post, sandwich, no_residual: see models/residual
  model.dropout = 0.0  # chance that a value is dropped
  model.attention_dropout = 0.0  # chance that a weight of attention is dropped
  model.embedding = "tokens"  # of the input: see transformer_jax/models/embeddings.py
  model.head = "linear"  # of the output: see transformer_jax/models/heads.py
  model.tied = True  # the output reads the input's token embedding
  model.dtype = "float32"  # of the matrix products: float32, bfloat16
  model.scan = False  # one compiled layer, run N times: compiles faster
  model.remat = "none"  # full: recompute layers in the backward pass; see howto/meshes
  return model


def _train() -> ConfigDict:
  train = ConfigDict()
  train.length = 64  # of the task; tokens for text (L)
  train.batch_size = 32  # sequences in a batch (B)
  train.accumulate = 1  # parts of a batch, computed one after another: less memory
  train.steps = 400  # updates of the parameters
  train.steps_per_dispatch = 40  # updates in one call of the device
  train.optimizer = "adamw(lr=4e-3, weight_decay=0.01)"
  train.schedule = "cosine(warmup=30)"  # the factor on lr over the steps
  train.clip = 1.0  # largest norm of a gradient; 0: any
  train.label_smoothing = 0.0  # probability moved from the target to all tokens
  train.auxiliary = ()  # ("head_diversity(output, weight=0.1)", "z_loss"): more losses
  train.ema = 0.0  # decay of a moving average of the parameters, used instead; 0: none
  train.init_from = ""  # folder of trained parameters: see runner/pretrained.py
  train.text = "auto"  # where the text is: resident on devices, streamed from the host
  train.metrics = ()  # ("grad_norm", "activation_rms"): see training/step_metrics
  train.checkpoint_every = 200  # steps
  train.keep_checkpoints = 2  # newest checkpoints that stay on disk
  return train


def _evaluate() -> ConfigDict:
  evaluate = ConfigDict()
  evaluate.lengths = (1, 2, 4, 8)  # multiples of train.length
  evaluate.examples = 128  # scored at each length, each once; fewer: all of them
  evaluate.batch_size = 16  # scored at once: bounds the memory, moves last digits
  evaluate.measures = ()  # ("accuracy", "my_file:Entropy()"); (): those of the task
  evaluate.split = ""  # validation to choose by, test to report; "": that of the task
  evaluate.texts = 1000  # most translations that are written and scored; 0: none
  evaluate.texts_per_step = 64  # of them at once
  evaluate.beam = 4  # texts that the search keeps; 1: greedy
  evaluate.rollouts = 16  # episodes of each target that a model plays; 0: none
  evaluate.target_returns = ()  # that it is asked for; (): from random's to the best
  evaluate.penalty = "gnmt(0.6)"  # for length: gnmt(alpha), power(alpha)
  return evaluate


def _mesh() -> ConfigDict:
  mesh = ConfigDict()
  # A CPU is split into as many devices as the mesh has, up to its cores.
  mesh.data = 1  # devices that share a batch; -1: all that are left
  mesh.tensor = 1  # devices that share heads and hidden units
  mesh.sequence = 1  # devices that share the tokens of a text
  mesh.fsdp = 1  # devices that share a batch, and each parameter and its moments
  mesh.seed = 1  # devices that have seeds of their own
  mesh.pmap = False  # True: data by jax.pmap, in maintenance mode: howto/meshes.md
  return mesh
