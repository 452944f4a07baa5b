"""Mixers as the papers write them: float64 NumPy, one token and head at a time.

Nothing here calls the project or JAX. Each function gets a mixer for its arguments, its
parameters and one text x_LD, and returns the layer's update of it. `MIXERS` names the
function of each.
"""

import numpy as np


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def silu(x):
  return x * sigmoid(x)


def softplus(x):
  return np.logaddexp(x, 0)


def unit(x):
  return x / np.sqrt(x @ x + 1e-6)


def rms(x, epsilon):
  return x / np.sqrt(np.mean(x**2) + epsilon)


def convolved(x_LE, taps_EN):
  """Returns sums over the newest tokens: taps[:, n] weighs the one n back."""
  out_LE = np.zeros_like(x_LE)
  for i in range(len(x_LE)):
    for n in range(min(taps_EN.shape[1], i + 1)):
      out_LE[i] += taps_EN[:, n] * x_LE[i - n]
  return out_LE


def found(p, start):
  """Returns the parameter whose name starts so, or None."""
  return next((x for name, x in p.items() if name.startswith(start)), None)


def delta_rule(mixer, p, x_LD, decay=None, gate=None):
  """Returns the update; `decay` and `gate` get a token and a head.

  decay   returns factors on the state's rows
  gate    returns factors on the output
  """
  H, K, E = p["value_DHE"].shape[1], found(p, "key_D").shape[2], len(p["norm_gain_E"])
  out_LD = np.zeros_like(x_LD)
  for h in range(H):
    state, got = np.zeros((K, E)), {}
    for name in ("query", "key", "value"):
      w_DHK, taps = found(p, f"{name}_D"), found(p, f"{name}_mix_")
      head = h // (H // w_DHK.shape[1])
      got[name] = x_LD @ w_DHK[:, head]
      if taps is not None:
        got[name] = convolved(got[name], taps[head])
      got[name] = silu(got[name])
    for i, x_D in enumerate(x_LD):
      q, k = unit(got["query"][i]), unit(got["key"][i])
      if decay is not None:
        state = state * np.reshape(decay(x_D, h), (-1, 1))
      beta = sigmoid(x_D @ p["strength_DH"][:, h]) * (1 + mixer.negative)
      state = state + beta * np.outer(k, got["value"][i] - k @ state)
      o = rms((q / np.sqrt(K)) @ state, mixer.epsilon) * p["norm_gain_E"]
      out_LD[i] += (o if gate is None else o * gate(x_D, h)) @ p["out_HED"][h]
  return out_LD


def gated_delta(mixer, p, x_LD):
  def decay(x_D, h):
    step = x_D @ p["decay_DH"][:, h] + p["step_shift_H"][h]
    return np.exp(-np.exp(p["log_rate_H"][h]) * softplus(step))

  return delta_rule(mixer, p, x_LD, decay, lambda x, h: silu(x @ p["gate_DHE"][:, h]))


def gated_conv(mixer, p, x_LD):
  def enter(name):
    return x_LD @ p[f"{name}_DF"] + p.get(f"{name}_shift_F", 0)

  mixed_LF = convolved(enter("write") * enter("value"), p["mix_FN"])
  read_LF = enter("read") * (mixed_LF + p.get("mix_shift_F", 0))
  return read_LF @ p["out_FD"] + p.get("out_shift_D", 0)


def gelu(x):
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def rg_lru(mixer, p, x_LD):
  out_LD = np.zeros_like(x_LD) + p.get("out_shift_D", 0)
  for h in range(p["rate_HE"].shape[0]):
    shift = {n: p.get(f"{n}_shift_HE", np.zeros((h + 1, 1)))[h] for n in SHIFTED}
    value_LE = x_LD @ p["value_DHE"][:, h] + shift["value"]
    gate_LE = gelu(x_LD @ p["gate_DHE"][:, h] + shift["gate"])
    if "mix_HEN" in p:
      value_LE = convolved(value_LE, p["mix_HEN"][h])
    state = None
    for i, x in enumerate(value_LE + shift["mix"]):
      r = sigmoid(x @ p["recurrence_HKE"][h] + shift["recurrence"])
      take = sigmoid(x @ p["input_HKE"][h] + shift["input"])
      a = np.exp(-8 * r * softplus(p["rate_HE"][h]))
      new = take * x
      state = new if state is None else a * state + np.sqrt(1 - a**2) * new
      out_LD[i] += (state * gate_LE[i]) @ p["out_HED"][h]
  return out_LD


SHIFTED = "value", "gate", "mix", "recurrence", "input"
MIXERS = {"gated_conv": gated_conv, "gated_delta": gated_delta, "rg_lru": rg_lru}
