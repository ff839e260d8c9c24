"""Stands for the package wandb: every call becomes a line of the file $FAKE_LOG. $FAKE_FAILS names calls that raise."""

import json
import os


def call(called, /, **arguments):
    with open(os.environ["FAKE_LOG"], "a") as file:
        file.write(json.dumps({"call": called, **arguments}) + "\n")
    if called in os.environ.get("FAKE_FAILS", "").split():
        raise OSError(28, "No space left on device")


class Settings:
    def __init__(self, *, console):
        self.console = console


class Image:
    def __init__(self, picture):
        self.size = picture.size


class _Config:
    def update(self, values, *, allow_val_change):
        call("wandb.config", values=values, change=allow_val_change)


class _Run:
    config = _Config()

    def define_metric(self, name, step_metric=None):
        call("wandb.define_metric", name=name, step_metric=step_metric)

    def log(self, row):
        call("wandb.log", row={name: getattr(value, "size", value) for name, value in row.items()})

    def finish(self, *, exit_code):
        call("wandb.finish", exit_code=exit_code)


def init(*, settings, **options):
    call("wandb.init", console=settings.console, **options)
    return _Run()
