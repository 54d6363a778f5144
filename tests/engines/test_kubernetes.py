"""What there is for Kubernetes has the right shape and fits together. No cluster has seen it."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline_lib.config import load_config
from pipeline_lib.job import submit_command

CONF = Path(__file__).parents[2] / "conf" / "kubernetes"
SCHEMA: dict[str, Any] = json.loads(Path(__file__).with_name("kubernetes_schema.json").read_text())


def manifest(name: str) -> Any:
    return json.loads((CONF / name).read_text())


@pytest.mark.parametrize("name", ["lode.json", "driver-pod.json"])
def test_the_manifests_are_valid(name: str) -> None:
    jsonschema.validate(manifest(name), SCHEMA)


def test_a_misspelt_field_is_found() -> None:
    pod = manifest("driver-pod.json")
    pod["spec"]["serviceAcountName"] = pod["spec"].pop("serviceAccountName")
    with pytest.raises(jsonschema.ValidationError, match="serviceAcountName"):
        jsonschema.validate(pod, {**SCHEMA["$defs"]["Pod"], "$defs": SCHEMA["$defs"]})


def test_the_command_names_what_the_manifests_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LODE_STACK_HOME", raising=False)
    for name in ("LODE_S3_ACCESS_KEY", "LODE_S3_SECRET_KEY"):
        monkeypatch.setenv(name, "must-not-show")
    config = load_config(CONF / "lode.toml")
    line = submit_command(config, "kafka_to_hdfs.py", ["events", "--config", "conf/kubernetes/lode.toml"])
    assert line[-2:] == ["local:///opt/lode/jobs/kafka_to_hdfs.py", "events"]
    assert "must-not-show" not in " ".join(line)
    pod = manifest("driver-pod.json")["spec"]
    (mount,) = pod["containers"][0]["volumeMounts"]
    assert f"spark.kubernetes.driverEnv.LODE_CONFIG={mount['mountPath']}" in line
    assert f"spark.kubernetes.authenticate.driver.serviceAccountName={pod['serviceAccountName']}" in line
    names = {item["metadata"]["name"] for item in manifest("lode.json")["items"] if item["kind"] == "ServiceAccount"}
    assert pod["serviceAccountName"] in names
