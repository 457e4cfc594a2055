"""What is in cluster.yaml and deploy/: Ray's own validation, KubeRay's field names, and commands that exist."""

from __future__ import annotations

import copy
import json
import re
import shlex
import tomllib
from pathlib import Path

import kuberay_fields as kuberay
import pytest
import yaml

from mnist_core.config import COMMANDS
from mnist_core.config_serve import ServeConfig
from mnist_core.config_sources import load_config

ROOT = Path(__file__).parents[2]
CLUSTERS = [ROOT / "cluster.yaml", ROOT / "deploy" / "on-prem.yaml"]
KUBERAY = [ROOT / "deploy" / "kuberay" / f"{name}.yaml" for name in ("score", "serve", "train")]
by_name = {"ids": lambda path: path.name}


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", CLUSTERS, **by_name)
def test_ray_finds_a_cluster_file_valid(path):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read(path)
    validate_config(prepare_config(copy.deepcopy(config)))
    config["no_such_field"] = 1
    with pytest.raises(Exception, match="no_such_field"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("path", CLUSTERS, **by_name)
def test_a_cluster_is_closed_unless_told(path):
    config = read(path)
    (head,) = [each for each in config["head_start_ray_commands"] if "ray start" in each]
    (worker,) = [each for each in config["worker_start_ray_commands"] if "ray start" in each]
    assert "--dashboard-host=127.0.0.1" in head
    assert all("mnist-node ray start" in " ".join(each.split()) for each in (head, worker))
    assert "~/.ray/auth_token" in config["file_mounts"]
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]
    fixed = (
        r"--(?:object-manager|node-manager|metrics-export|runtime-env-agent|m\w\w-worker|dashboard-agent-grpc)-port=\d+"
    )
    assert sorted(re.findall(fixed, head)) == sorted(re.findall(fixed, worker))
    assert len(re.findall(fixed, head)) == 7


def test_the_head_of_a_cluster_does_no_work():
    assert read(CLUSTERS[0])["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert read(CLUSTERS[0])["available_node_types"]["gpu"]["min_workers"] == 0
    assert any("--num-cpus=0" in each for each in read(CLUSTERS[1])["head_start_ray_commands"])


def test_the_head_on_aws_has_the_rights_to_start_workers():
    text, config = CLUSTERS[0].read_text(), read(CLUSTERS[0])
    (policy,) = re.findall(r"(?ms)^ +# +(\{\"Version.*?\]\})$", text)
    statements = json.loads(re.sub(r"(?m)^ +# +", "", policy))["Statement"]
    rights = {
        each["Resource"]: {*([each["Action"]] if isinstance(each["Action"], str) else each["Action"])}
        for each in statements
    }
    types = config["available_node_types"]
    roles = {name: each["node_config"]["IamInstanceProfile"]["Name"] for name, each in types.items()}
    assert roles["head"] not in {roles["cpu"], roles["gpu"]}
    for role in {roles["cpu"], roles["gpu"]}:
        assert rights[f"arn:aws:iam::ACCOUNT:role/{role}"] == {"iam:PassRole"}
    assert rights["arn:aws:ssm:*::parameter/aws/service/*"] == {"ssm:GetParameters"}
    for each in types.values():
        assert each["node_config"]["ImageId"].startswith("resolve:ssm:/aws/service/")
    assert rights["*"] >= {"ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags"}


def test_a_new_machine_on_aws_is_left_to_set_itself_up_first():
    first, install = read(CLUSTERS[0])["initialization_commands"]
    assert first.startswith("cloud-init status --wait")
    assert install.count("apt-get -o DPkg::Lock::Timeout=300") == install.count("apt-get") == 2


@pytest.mark.parametrize("path", CLUSTERS, **by_name)
def test_the_targets_of_make_are_there(path):
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    used = re.findall(r"make --directory \S+ (\S+)", path.read_text())
    assert used
    assert set(used) <= targets


def clusters(document):
    spec = document["spec"]
    return spec["rayClusterSpec" if document["kind"] == "RayJob" else "rayClusterConfig"]


@pytest.mark.parametrize("path", KUBERAY, **by_name)
def test_kuberay_knows_every_field(path):
    document = read(path)
    assert document["apiVersion"] == "ray.io/v1"
    assert set(document["spec"]) <= {"RayJob": kuberay.JOB, "RayService": kuberay.SERVICE}[document["kind"]]
    cluster = clusters(document)
    assert set(cluster) <= kuberay.CLUSTER
    assert set(cluster["authOptions"]) <= kuberay.AUTH
    assert set(cluster["headGroupSpec"]) <= kuberay.HEAD
    assert all(set(group) <= kuberay.WORKERS for group in cluster["workerGroupSpecs"])
    assert document["spec"].get("upgradeStrategy", {"type": "None"})["type"] in kuberay.UPGRADES


@pytest.mark.parametrize("path", KUBERAY, **by_name)
def test_pods_run_as_nobody_special_with_a_token_and_the_pinned_ray(path):
    cluster = clusters(read(path))
    assert cluster["authOptions"] == {"mode": "token"}
    assert f"\nray=={cluster['rayVersion']} " in (ROOT / "requirements.lock").read_text().replace(
        "[default,serve,train]", ""
    )
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["enableServiceLinks"] is False  # they would be unknown MNIST_ variables
        (container,) = pod["containers"]
        assert container["image"].endswith(f":{version}")
        assert "mnist-node" in container["args"][0]
        assert group["template"]["metadata"]["annotations"] == {"ray.io/overwrite-container-cmd": "true"}
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("path", KUBERAY, **by_name)
def test_the_operator_reaches_the_head(path):
    head = clusters(read(path))["headGroupSpec"]
    assert "dashboard-host" not in head["rayStartParams"]  # KubeRay's own is 0.0.0.0
    assert "ports" not in head["template"]["spec"]["containers"][0]  # else the head's Service has only those


def test_the_pods_of_the_endpoint_name_its_ports():
    (group,) = clusters(read(ROOT / "deploy" / "kuberay" / "serve.yaml"))["workerGroupSpecs"]
    named = {each["name"]: each["containerPort"] for each in group["template"]["spec"]["containers"][0]["ports"]}
    service = read(ROOT / "deploy" / "kuberay" / "serve.yaml")["spec"]["serveService"]["spec"]["ports"]
    assert named == {each["name"]: each["targetPort"] for each in service}


def test_a_job_waits_for_workers_or_has_them_from_the_start():
    for path in KUBERAY:
        cluster = clusters(read(path))
        (group,) = cluster["workerGroupSpecs"]
        grows = cluster.get("enableInTreeAutoscaling", False)
        assert grows or group["replicas"] == group["minReplicas"] == group["maxReplicas"]
        assert group["minReplicas"] or "--resource-wait-s" in read(path)["spec"]["entrypoint"]


def test_from_beyond_the_pods_only_endpoint_and_dashboard_are_reached():
    spec = read(ROOT / "deploy" / "kuberay" / "network-policy.yaml")["spec"]
    pods = {"matchLabels": {"ray.io/is-ray-node": "yes"}}  # KubeRay's label
    assert (spec["podSelector"], spec["policyTypes"]) == (pods, ["Ingress"])
    each_other, dashboard, everybody = spec["ingress"]
    assert each_other == {"from": [{"podSelector": pods}]}
    assert dashboard["ports"] == [{"port": 8265}]
    assert everybody == {"ports": [{"port": 8000}, {"port": 9000}]}


@pytest.mark.parametrize("path", [each for each in KUBERAY if "serve" not in each.name], **by_name)
def test_what_a_job_runs_is_a_command_of_ours(path):
    program, word, *rest = shlex.split(read(path)["spec"]["entrypoint"])
    assert program == "mnist"
    config = load_config({cls.command: cls for cls in COMMANDS}[word], rest)
    assert config.storage.startswith("s3://")


@pytest.mark.parametrize("source", ["kuberay/serve.yaml", "serve/config.yaml"])
def test_ray_serve_finds_its_config_valid(source):
    from ray.serve.schema import ServeDeploySchema

    config = (
        read(ROOT / source)
        if source.startswith("serve")
        else yaml.safe_load(read(ROOT / "deploy" / source)["spec"]["serveConfigV2"])
    )
    (application,) = ServeDeploySchema.model_validate(config).applications
    assert application.import_path == "serve.app:build"
    ServeConfig.model_validate(application.args)


def test_the_image_is_pinned_and_its_user_is_not_root():
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    images = re.findall(r"(?m)^FROM (\S+)", text)
    assert len(images) == 2
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", image) for image in images)
    assert re.findall(r"(?m)^USER (\S+)", text) == ["1000"]
    for source in re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", text):
        assert all((ROOT / each).exists() for each in source.split())
