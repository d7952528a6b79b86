"""Images and manifests: linted, checked against schemas, and against what Lightwell itself declares."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import typer
import yaml
from lightwell.cli.app import app
from lightwell.cli.submit import check_command
from ray.autoscaler._private.util import prepare_config, validate_config

DOCKERFILES = ("Dockerfile.cpu", "Dockerfile.cuda")
KUBERNETES = "1.31"
# Fields of KubeRay's ray.io/v1, whose schema no registry has: raycluster_types.go and rayjob_types.go of KubeRay 1.3.
CLUSTER_FIELDS = {
    "suspend", "managedBy", "autoscalerOptions", "headServiceAnnotations", "enableInTreeAutoscaling",
    "gcsFaultToleranceOptions", "headGroupSpec", "rayVersion", "workerGroupSpecs",
}  # fmt: skip
HEAD_FIELDS = {"template", "headService", "enableIngress", "rayStartParams", "serviceType"}
GROUP_FIELDS = {
    "suspend", "groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds", "rayStartParams", "template",
    "scaleStrategy", "numOfHosts",
}  # fmt: skip
JOB_FIELDS = {
    "activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate", "metadata", "clusterSelector",
    "submitterConfig", "managedBy", "deletionPolicy", "entrypoint", "runtimeEnvYAML", "jobId", "submissionMode",
    "entrypointResources", "entrypointNumCpus", "entrypointNumGpus", "ttlSecondsAfterFinished", "shutdownAfterJobFinishes",
    "suspend",
}  # fmt: skip


@pytest.fixture(scope="session")
def deploy(root: Path) -> Path:
    return root / "deploy"


def load(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text())
    assert isinstance(found, dict)
    return found


def clusters(deploy: Path) -> dict[str, dict[str, Any]]:
    return {
        "cluster.yaml": load(deploy / "kuberay" / "cluster.yaml")["spec"],
        "job.yaml": load(deploy / "kuberay" / "job.yaml")["spec"]["rayClusterSpec"],
    }


def pods(cluster: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The pod templates of a cluster by the names of their groups."""
    groups = {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"], **groups}


def instructions(dockerfile: Path) -> list[str]:
    """The instructions of a Dockerfile, each in one line, with the default base image filled in."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^\s*#.*\n", "", dockerfile.read_text()))
    image = re.findall(r"(?m)^ARG PYTHON_IMAGE=(\S+)$", text)
    assert len(image) == 1
    return [line for line in text.replace("${PYTHON_IMAGE}", image[0]).splitlines() if line.strip()]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfiles_pass_the_linter(name: str, deploy: Path) -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert linter is not None
    done = subprocess.run([linter, str(deploy / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_linter_sees_a_bad_dockerfile(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /tmp && pip install ray\n")
    linter = str(Path(sys.executable).parent / "hadolint")
    done = subprocess.run([linter, str(tmp_path / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode != 0


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_pinned_constrained_small_and_not_root(name: str, deploy: Path) -> None:
    lines = instructions(deploy / name)
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert {re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base) is not None for base in bases} == {True}
    installs = [line for line in lines if "pip install" in line]
    assert all("--no-cache-dir" in line for line in installs)
    assert all("-c /constraints.txt" in line or "--no-deps" in line for line in installs)
    last = [line for line in lines if line.startswith("USER ")][-1]
    assert last == "USER 1000"
    assert not [line for line in lines if line.startswith("ADD ")]
    assert lines.index(last) > max(number for number, line in enumerate(lines) if line.startswith("RUN "))
    final = lines[[number for number, line in enumerate(lines) if line.startswith("FROM ")][-1] :]
    assert not [line for line in final if line.startswith("COPY ")], "sources stay in the stage that builds"


def test_both_images_have_the_same_python_as_nodes_of_one_cluster_must(deploy: Path) -> None:
    bases = {line for name in DOCKERFILES for line in instructions(deploy / name) if line.startswith("FROM ")}
    assert len({line.split()[1] for line in bases}) == 1


def test_the_context_of_an_image_has_what_the_wheel_needs_and_no_more(
    root: Path, project_files: tuple[str, ...]
) -> None:
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]

    def is_sent(name: str) -> bool:
        sent = True
        for rule in rules:
            pattern = rule.removeprefix("!")
            tops = [name, *map(str, Path(name).parents)]
            if any("/" not in top and fnmatch.fnmatch(top, pattern) for top in tops):
                sent = rule.startswith("!")
        return sent

    sent = {name for name in project_files if is_sent(name)}
    project = tomllib.loads((root / "pyproject.toml").read_text())
    packages = {
        package.removeprefix("lightwell").strip(".").replace(".", "/")
        for package in project["tool"]["setuptools"]["packages"]
    }
    needed = {
        name
        for name in project_files
        if name.endswith((".py", ".html", ".yaml")) and str(Path(name).parent).strip(".") in packages
    }
    needed |= {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "py.typed"}
    assert needed <= sent
    assert not [name for name in sent if name.startswith(("tests", "deploy", ".git"))]


def test_what_pods_share_is_a_claim_that_many_may_write(deploy: Path) -> None:
    claim = load(deploy / "kuberay" / "storage.yaml")
    kubernetes_validate.validate(claim, KUBERNETES, strict=True)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_pods_are_reached_by_each_other_the_operator_and_prometheus_alone(deploy: Path) -> None:
    policy = load(deploy / "kuberay" / "network.yaml")
    kubernetes_validate.validate(policy, KUBERNETES, strict=True)
    spec = policy["spec"]
    for cluster in clusters(deploy).values():
        for template in pods(cluster).values():
            assert spec["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    for rule in spec["ingress"]:
        (source,) = rule["from"]
        assert "ports" in rule or source == {"podSelector": spec["podSelector"]}
        assert "ipBlock" not in source
    blocks = [to["ipBlock"] for rule in spec["egress"] for to in rule["to"] if "ipBlock" in to]
    assert all("169.254.0.0/16" in block["except"] for block in blocks)


@pytest.mark.parametrize("name", ["cluster.yaml", "job.yaml"])
def test_a_cluster_has_only_fields_that_kuberay_knows(name: str, deploy: Path) -> None:
    written = load(deploy / "kuberay" / name)
    assert written["apiVersion"] == "ray.io/v1"
    assert written["kind"] == {"cluster.yaml": "RayCluster", "job.yaml": "RayJob"}[name]
    if name == "job.yaml":
        assert set(written["spec"]) <= JOB_FIELDS
    cluster = clusters(deploy)[name]
    assert set(cluster) <= CLUSTER_FIELDS
    assert set(cluster["headGroupSpec"]) <= HEAD_FIELDS
    assert {field for group in cluster["workerGroupSpecs"] for field in group} <= GROUP_FIELDS
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), (
            "KubeRay wants strings"
        )
    assert [group["groupName"] for group in cluster["workerGroupSpecs"]] == ["cpu", "gpu"]
    assert all(
        group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        for group in cluster["workerGroupSpecs"]
    )


@pytest.mark.parametrize("group", ["head", "cpu", "gpu"])
@pytest.mark.parametrize("name", ["cluster.yaml", "job.yaml"])
def test_a_pod_is_one_of_kubernetes_and_shares_limits_and_is_not_root(
    name: str, group: str, deploy: Path
) -> None:
    template = pods(clusters(deploy)[name])[group]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod", **template["metadata"]},
        "spec": template["spec"],
    }
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    (container,) = template["spec"]["containers"]
    claim = load(deploy / "kuberay" / "storage.yaml")["metadata"]["name"]
    volumes = {one["name"]: one for one in template["spec"]["volumes"]}
    mounts = {one["mountPath"]: volumes[one["name"]] for one in container["volumeMounts"]}
    assert mounts["/shared"]["persistentVolumeClaim"]["claimName"] == claim
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    resources = container["resources"]
    assert resources["requests"] == resources["limits"], (
        "Ray counts limits; a pod with less than it counts on is throttled"
    )
    assert ("nvidia.com/gpu" in resources["limits"]) == (group == "gpu")
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    written = {path for path, volume in mounts.items() if "emptyDir" in volume}
    assert written == {"/dev/shm", "/tmp", "/home/lightwell"}, (
        "what Ray and caches write; all else is read-only"
    )
    assert all(mounts[path]["emptyDir"]["sizeLimit"] for path in written)
    assert template["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "hostNetwork" not in template["spec"]
    assert (group == "head") == template["spec"].get("automountServiceAccountToken", True)
    assert {one["name"] for one in container["env"]} == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
    assert ("cuda" in container["image"]) == (group == "gpu")


def test_a_cluster_for_one_command_is_the_cluster_that_stays(deploy: Path) -> None:
    cluster, job = clusters(deploy).values()
    assert cluster == job


def test_versions_are_those_that_are_pinned(root: Path, deploy: Path) -> None:
    pin = next(
        line for line in (root / "constraints.txt").read_text().splitlines() if line.startswith("ray==")
    )
    version = metadata.version("lightwell")
    for cluster in clusters(deploy).values():
        assert f"ray=={cluster['rayVersion']}" == pin
        images = {template["spec"]["containers"][0]["image"] for template in pods(cluster).values()}
        assert images == {f"lightwell:{version}-cpu", f"lightwell:{version}-cuda"}
    assert load(deploy / "ray-cluster.yaml")["docker"]["image"] == f"lightwell:{version}-cpu"


def test_the_entrypoint_of_a_job_is_a_command_of_ours(deploy: Path) -> None:
    words = shlex.split(load(deploy / "kuberay" / "job.yaml")["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "lightwell.cli"]
    command = check_command(typer.main.get_command(app), words[3:])
    assert str(command.documents[0].path).startswith("/shared/")


def test_plain_machines_are_described_as_ray_wants_it(deploy: Path) -> None:
    written = load(deploy / "ray-cluster.yaml")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(written, schema)
    validate_config(prepare_config(written))
    (head,) = [line for line in written["head_start_ray_commands"] if "--head" in line]
    assert "--dashboard-host=127.0.0.1" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert {"--security-opt=no-new-privileges", "--cap-drop=ALL"} <= set(written["docker"]["run_options"])


def test_a_token_file_is_made_for_its_owner_alone(deploy: Path, tmp_path: Path) -> None:
    (made,) = [line for line in (deploy / "README.md").read_text().splitlines() if "O_CREAT" in line]
    (tmp_path / "deploy").mkdir()
    words = shlex.split(made.removeprefix("$ "))
    subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, check=True)
    token = tmp_path / "deploy" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}", token.read_text())


def test_the_dashboard_is_whole(deploy: Path) -> None:
    dashboard = json.loads((deploy / "grafana-dashboard.json").read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies on another panel"
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["targets"]
        assert panel["description"]
    known = {f"${variable['name']}" for variable in dashboard["templating"]["list"]} | {"$__rate_interval"}
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\$\w+", target["expr"])
    }
    assert asked <= known
