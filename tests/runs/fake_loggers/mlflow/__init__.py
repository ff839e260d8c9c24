"""Stands for the package mlflow: every call becomes a line of the file $FAKE_LOG, as those of wandb do."""

from dataclasses import asdict
from types import SimpleNamespace

from wandb import call  # of the other fake module


class MlflowClient:
    def __init__(self, *, tracking_uri):
        self.params = {}
        call("mlflow.client", uri=tracking_uri)

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="7") if name == "mine" else None

    def create_experiment(self, name, *, artifact_location):
        call("mlflow.create_experiment", name=name, artifact_location=artifact_location)
        return "1"

    def create_run(self, experiment, *, run_name):
        call("mlflow.create_run", experiment=experiment, run_name=run_name)
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run of {run_name}"))

    def update_run(self, run, *, status):
        self.params = {"lr": "0.1"}  # an earlier start has left it
        call("mlflow.update_run", run=run, status=status)

    def get_run(self, run):
        return SimpleNamespace(data=SimpleNamespace(params=self.params))

    def log_batch(self, run, *, metrics=(), params=()):
        call("mlflow.log_batch", run=run, metrics=[asdict(m) for m in metrics], params=[asdict(p) for p in params])

    def log_dict(self, run, values, file):
        call("mlflow.log_dict", run=run, values=values, file=file)

    def log_text(self, run, text, file):
        call("mlflow.log_text", run=run, text=text, file=file)

    def log_image(self, run, picture, *, key, step):
        call("mlflow.log_image", run=run, size=picture.size, key=key, step=step)

    def set_terminated(self, run, *, status):
        call("mlflow.set_terminated", run=run, status=status)
