"""Control problems: scripted policies and their episodes in Gymnasium's environments.

Importing this package fills the registry `base.policies`.
"""

from transformer_jax.data.control import momentum as momentum
from transformer_jax.data.control import pd as pd
from transformer_jax.data.control import random_actions as random_actions
from transformer_jax.data.control import swing_up as swing_up
from transformer_jax.data.control.base import Policy as Policy
from transformer_jax.data.control.base import policies as policies
