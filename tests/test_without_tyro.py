"""Models, configurations, the trainer and trained generators need no library for command lines; only flags need it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND_LINE = ("tyro", "docstring_parser", "typeguard")
WITHOUT = """
import sys

class Finder:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {hidden} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Finder, sys.meta_path)
"""


def without(hidden: tuple[str, ...], code: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", WITHOUT.format(hidden=hidden) + code]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=cwd, capture_output=True, text=True)


def test_a_step_a_checkpoint_and_pictures_need_no_tyro(tmp_path):
    code = """
import dataclasses
from pathlib import Path
import torch
import gan_engine
from gan_engine import evaluate, generate, models, report, translate, upscale
from gan_engine.config import Config
from gan_engine.saved_config import from_dict, to_dict
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
    done = without(COMMAND_LINE, code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_step_needs_no_library_beyond_those_of_gpu_check(tmp_path):
    """An image with PyTorch, Triton and a compiler has no bars, pages or figures; benchmarks/gpu_check steps there."""
    code = """
import dataclasses
from pathlib import Path
import torch
from gan_engine.data import load
from gan_engine.presets import PRESETS
from gan_engine.training.trainer import Trainer

config = dataclasses.replace(PRESETS["vanilla"](), data="toy", conditional=False, batch_size=4, tensorboard=False)
data = load(config.data_config, resolution=config.model.resolution, channels=config.model.channels)
Trainer(config, data, device=torch.device("cpu"), run_dir=Path("run")).step()
"""
    done = without(("tqdm", "matplotlib", "tensorboard", "torchvision", "scipy", *COMMAND_LINE), code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_command_without_tyro_says_what_to_install(tmp_path):
    code = """
from gan_engine import generate, train
sys.exit(10 * train.main(["dcgan", "--help"]) + generate.main(["run"]))
"""
    done = without(COMMAND_LINE, code, tmp_path)
    assert done.returncode == 22, done.stderr
    line = "error: the command line needs tyro: pip install tyro (No module named 'tyro')"
    assert done.stderr.splitlines() == [line] * 2
