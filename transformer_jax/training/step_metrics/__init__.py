"""Step metrics: what a training step does, layer by layer. Each metric is one file.

Importing this package fills the registry `base.step_metrics`.
"""

from transformer_jax.training.step_metrics import activation_rms as activation_rms
from transformer_jax.training.step_metrics import attention_logit as attention_logit
from transformer_jax.training.step_metrics import tree_norms as tree_norms
from transformer_jax.training.step_metrics.base import StepMetric as StepMetric
from transformer_jax.training.step_metrics.base import step_metrics as step_metrics
