"""Models, configurations, the trainer and trained generators need no library for command lines; only flags need it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WITHOUT = """
import sys
class Hide:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in ("tyro", "docstring_parser", "typeguard"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
"""


def without_tyro(code: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", WITHOUT + code]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=cwd, capture_output=True, text=True)


def test_a_step_a_checkpoint_and_pictures_need_no_tyro(tmp_path):
    code = """
import dataclasses
from pathlib import Path
import torch
import gan_engine
from gan_engine import evaluate, generate, models, report, translate, upscale
from gan_engine.config import Config, from_dict, to_dict
from gan_engine.data import load
from gan_engine.presets import PRESETS
from gan_engine.system import checkpoint
from gan_engine.training.trainer import Trainer

for name, module in models.FAMILIES.items():
    if "resolution" in module.Config.__dataclass_fields__:
        assert models.from_dict(models.to_dict(module.Config())) == module.Config(), name
config = dataclasses.replace(
    PRESETS["vanilla"](), data="toy", conditional=False, batch_size=4, out=Path("run"), tensorboard=False
)
assert from_dict(to_dict(config), "here").model == config.model
data = load(config.data_config, resolution=config.model.resolution, channels=config.model.channels)
trainer = Trainer(config, data, device=torch.device("cpu"), run_dir=Path("run"))
trainer.step()
Path("run").mkdir()
checkpoint.save(Path("run") / f"{checkpoint.stem(trainer.nimg)}.pt", trainer.state_dict())
assert generate.generate(generate.Options(Path("run"), num=4, out=Path("grid.png"))).is_file()
assert gan_engine.load("run").sample(2, seed=0).shape[0] == 2
assert "tyro" not in sys.modules
"""
    done = without_tyro(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_command_without_tyro_says_what_to_install(tmp_path):
    code = """
from gan_engine import generate, train
sys.exit(10 * train.main(["dcgan", "--help"]) + generate.main(["run"]))
"""
    done = without_tyro(code, tmp_path)
    assert done.returncode == 22, done.stderr
    line = "error: the command line needs tyro: pip install tyro (No module named 'tyro')"
    assert done.stderr.splitlines() == [line] * 2
