"""All registries of the project."""

import transformer_jax.data  # noqa: F401, fills the registry of tasks
from transformer_jax import interop
from transformer_jax.analysis import head_similarities, head_statistics
from transformer_jax.analysis.probes.base import probe_labels, probes
from transformer_jax.attention import attentions
from transformer_jax.attention.cores import cores
from transformer_jax.data.base import tasks
from transformer_jax.data.control.base import policies
from transformer_jax.data.sources import sources
from transformer_jax.data.tokenizers import tokenizers
from transformer_jax.evaluation import answer_measure  # noqa: F401, is a measure
from transformer_jax.evaluation.beam import penalties
from transformer_jax.evaluation.measures import measures
from transformer_jax.models import (
  canon,
  embeddings,
  feature_norms,
  feedforward_kinds,
  heads,
  layers,
)
from transformer_jax.models.families import families
from transformer_jax.models.recurrent import bridges, rnn_cells
from transformer_jax.models.residual import placements
from transformer_jax.positions import positions
from transformer_jax.training.auxiliary import auxiliary_losses
from transformer_jax.training.objectives import objectives
from transformer_jax.training.optimizers import optimizers, schedules
from transformer_jax.training.step_metrics.base import step_metrics

# Attention variants; the others of the registry are mixers, which have no scores.
SCORED = [name for name, kind in attentions.items() if not kind.mixer]
# Those whose objects a config describes.
CONFIGURED = [positions, attentions, cores, tasks, embeddings.embeddings, heads.heads]
CONFIGURED += [feature_norms.norms, layers.activations, families, bridges.links]
CONFIGURED += [feedforward_kinds.feedforwards, canon.convolutions]
CONFIGURED += [placements, optimizers, schedules, tokenizers, penalties]
CONFIGURED += [rnn_cells.cells, measures, auxiliary_losses, objectives, step_metrics]
REGISTRIES = [*CONFIGURED, sources, interop.families, head_statistics]
REGISTRIES += [head_similarities, probes, probe_labels, policies]
