"""configs/billion.py as a toy: parameters split over two devices, subwords, a seed."""

import json

TOY = {"model.width": 16, "model.layers": 2, "model.heads": 2, "model.feedforward": 24}
TOY |= {"train.length": 16, "train.batch_size": 4, "train.steps": 4}
TOY |= {"train.steps_per_dispatch": 2, "train.checkpoint_every": 4}
TOY |= {"train.schedule": "constant", "mesh.data": 1, "mesh.fsdp": 2}
TOY |= {"evaluate.lengths": "(1,)", "evaluate.examples": 4, "evaluate.batch_size": 4}


def test_a_toy_of_the_config_is_trained_on_two_devices(commands, tmp_path):
  text = tmp_path / "numbers.txt"
  text.write_text("".join(f"{n} squared is {n * n}. " for n in range(900)))
  task = f"tokens('{text}', tokenizer='subword(size=300)', window=32, scored=8)"
  overrides = [
    f"--config.{key}={value}" for key, value in (TOY | {"task": task}).items()
  ]
  done = commands.run(
    "experiments.run",
    *("--config=experiments/configs/billion.py", f"--workdir={tmp_path / 'runs'}"),
    *overrides,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  (path,) = (tmp_path / "runs").glob("runs/*/result.json")
  result = json.loads(path.read_text())
  assert result["mesh"]["fsdp"] == 2
  assert [x for x in result["scores"] if x["value"] is not None]
