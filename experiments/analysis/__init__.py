"""Finished runs and sweeps from Python: parameters, scores, texts, activations.

from experiments import load_run, load_sweep
run = load_run("runs/quickstart/runs/ID")
frame = load_sweep("runs/quickstart").frame("model.position")
"""

from experiments.analysis.loading import LoadedSweep as LoadedSweep
from experiments.analysis.loading import load_run as load_run
from experiments.analysis.loading import load_sweep as load_sweep
from experiments.analysis.trained_run import TrainedRun as TrainedRun
