"""A run in MLflow (https://mlflow.org/docs/latest/ml/tracking), at MLFLOW_TRACKING_URI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlflow import MlflowClient

from jalign.log.trackers.protocol import TrackedRun
from jalign.log.trackers.tags import flat, tagged

_TAG = "jalign.id"
_LONGEST = 6000  # characters of a parameter's value


class MLflow:
    """A run of MLflow's with jalign's id as a tag, by which a resumed run continues it."""

    def start(self, run: TrackedRun) -> None:
        self._client = MlflowClient()
        experiment = self._client.get_experiment_by_name(run.project)
        # older versions of a store return deleted experiments, in which no run can be started
        if experiment is not None and experiment.lifecycle_stage == "active":
            place = experiment.experiment_id
        else:
            place = self._client.create_experiment(run.project)
        earlier = self._client.search_runs([place], f"tags.`{_TAG}` = '{run.id}'")
        if earlier:
            self._id = earlier[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        tags = {_TAG: run.id}
        self._id = self._client.create_run(place, tags=tags, run_name=run.name).info.run_id
        for name, value in flat(run.config).items():
            if value not in (None, "", [], {}):
                self._client.log_param(self._id, name, str(value)[:_LONGEST])

    def scalars(self, step: int, kind: str, metrics: Mapping[str, float | None]) -> None:
        for name, value in tagged(kind, metrics).items():
            self._client.log_metric(self._id, name, value, step=step)

    def texts(self, step: int, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        columns = {key: [row.get(key) for row in rows] for key in (rows[0] if rows else ())}
        if columns:
            self._client.log_dict(self._id, columns, f"{name}/step-{step:06}.json")

    def flush(self) -> None:
        """Every call is written at once."""

    def close(self) -> None:
        self._client.set_terminated(self._id)


def make() -> MLflow:
    return MLflow()
