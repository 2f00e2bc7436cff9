"""Manifests: the Kubernetes objects around a recipe, so that nobody copies YAML by hand.

A suspended RayJob is the pattern: no cluster is made for it. Every night a CronJob starts a dated copy (`launching`).
"""

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from relabel.about import installed_version
from relabel.digests import Json, digest
from relabel.errors import UsageError

from .launching import EXIT_CODES
from .nightly_policy import Nightly
from .recipe import Recipe
from .shipping import Shipment

RECIPES = "/etc/relabel"
"""Where the recipe's ConfigMap is mounted."""
SCRIPT = "relabel.sh"
"""In it: what the head runs. A RayJob's entrypoint is read by two shells: that of the pod that submits it, where `&&`
ends what is submitted, and the head's, which does not see the first one's quotes. It must hold nothing that they read.
"""
ACCOUNT, LAUNCH_ACCOUNT = "relabel", "relabel-launch"
MAX_NAME = 31
"""Of 47 that KubeRay allows a RayJob: a date and a retry come after it."""
MAX_CONFIG_BYTES = 900_000
STOP_SECONDS = 60
LATE_SECONDS = 1800
"""A CronJob ends so long after its RayJob had to."""
EARLY_SECONDS = 900
"""And the night's program stops so long before it, with what is finished kept."""
USER = 1000
NOBODY_ELSE: Json = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What of a cluster is chosen when manifests are printed; an overlay of Kustomize changes the rest."""

    image: str
    namespace: str | None = None
    workers: tuple[int, int] = (1, 1)
    """At least and at most; the cluster scales between them."""
    cpus: int = 4
    memory: str = "16Gi"
    gpus: int = 1
    """Per worker."""
    deadline_seconds: int = 8 * 3600
    secret: str | None = None
    """A Secret whose keys are the environment of every Ray pod."""
    schedule: str | None = None
    time_zone: str = "Etc/UTC"
    retries: int = 2
    overrides: Sequence[str] = ()
    """Of the recipe's fields."""


def name_of(recipe: Recipe) -> str:
    """A name that Kubernetes takes; where letters are lost it ends with a digest, so that two stay apart."""
    plain = re.sub(r"[^a-z0-9]+", "-", recipe.name.lower()).strip("-")
    name = plain if plain.startswith("relabel") else f"relabel-{plain}"
    if len(name) <= MAX_NAME and plain == recipe.name:
        return name
    return f"{name[: MAX_NAME - 5].rstrip('-')}-{digest(recipe.name)[:4]}"


def objects(shipment: Shipment, settings: Settings, ray_cron: bool = False) -> list[Json]:
    """Everything that `kubectl apply` needs, in order: accounts, recipe, RayJob, and with a schedule what starts it."""
    name, labels = name_of(shipment.recipe), labels_of(shipment.recipe)
    every: list[Json] = [
        service_account(ACCOUNT, "Who the Ray pods are: give it the right to the bucket (an annotation of the cloud)."),
        config_map(name, shipment, settings),
    ]
    if settings.schedule is None:
        every.append(rayjob(name, shipment, settings, suspend=False))
    elif ray_cron:
        every.append(ray_cron_job(name, shipment, settings))
    else:
        every += [
            service_account(LAUNCH_ACCOUNT, "Who the CronJob is: it creates RayJobs and reads them, nothing else."),
            *launch_rights(),
            rayjob(name, shipment, settings, suspend=True),
            cron_job(name, shipment.recipe, settings),
        ]
    return [placed(each, settings.namespace, labels) for each in every]


def placed(each: Json, namespace: str | None, labels: Mapping[str, str]) -> Json:
    where = {"namespace": namespace} if namespace else {}
    metadata = {"name": each["metadata"]["name"], **where, "labels": dict(labels), **each["metadata"]}
    for subject in each.get("subjects", []):
        subject.update(where)
    return {**each, "metadata": metadata}


def labels_of(recipe: Recipe) -> dict[str, str]:
    """Also the owner's, where the recipe names one."""
    meta = getattr(recipe, "meta", None)
    owner = {} if meta is None else {name: str(value) for name, value in meta.model_dump().items() if value}
    return {
        "app.kubernetes.io/name": "relabel",
        "app.kubernetes.io/instance": name_of(recipe),
        **{f"relabel/{name.replace('_', '-')}": label_value(value) for name, value in owner.items()},
    }


def label_value(text: str) -> str:
    """At most 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:63].strip("-_.")


def service_account(name: str, why: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "annotations": {"relabel/purpose": why}},
        "automountServiceAccountToken": False,
    }


def launch_rights() -> list[Json]:
    rules = [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]}]
    api = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": {"name": LAUNCH_ACCOUNT}, "rules": rules},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": LAUNCH_ACCOUNT},
            "roleRef": {"apiGroup": api, "kind": "Role", "name": LAUNCH_ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": LAUNCH_ACCOUNT}],
        },
    ]


def config_map(name: str, shipment: Shipment, settings: Settings) -> Json:
    """Recipe, lock file, plugins and taxonomies, and what is run. Raises UsageError where they are no text, or too much
    of it.
    """
    if SCRIPT in shipment.files:
        raise UsageError(f"a file of the recipe is called {SCRIPT}, as what starts it on the cluster: rename it.")
    try:
        data = {key_of(path): content.decode() for path, content in shipment.files.items()}
    except UnicodeDecodeError:
        raise UsageError("a plugin's folder holds files that are no text; put the plugin into the image.") from None
    if (size := sum(map(len, shipment.files.values()))) > MAX_CONFIG_BYTES:
        raise UsageError(
            f"the recipe's files have {size} bytes, and a ConfigMap holds 1 MiB: put what is large into the image."
        )
    data = {**data, SCRIPT: script(shipment, settings)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-recipe"}, "data": data}


def key_of(path: str) -> str:
    """A key of a ConfigMap, different for every path."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", path)
    return plain if plain == path else f"{plain}-{digest(path)[:6]}"


def script(shipment: Shipment, settings: Settings) -> str:
    """What the head runs; a night ends itself before it would be ended, unless the recipe says when. What the
    entrypoint has after the script's name is passed on.
    """
    command, arguments = (
        ("run", []) if settings.schedule is None else ("nightly", deadline_of(shipment.recipe, settings))
    )
    changes = [word for each in settings.overrides for word in ("--set", each)]
    program = ["python", "-m", "relabel.pipelines", command, shipment.path, "--address", "auto", *changes, *arguments]
    start = "" if shipment.folder == "." else f"cd {shlex.quote(shipment.folder)}\n"
    return f'set -e\ncd "$(dirname "$0")"\n{start}exec {shlex.join(program)} "$@"\n'


def deadline_of(recipe: Recipe, settings: Settings) -> list[str]:
    if getattr(getattr(recipe, "nightly", None), "deadline", None) is not None:
        return []
    seconds = max(settings.deadline_seconds - EARLY_SECONDS, settings.deadline_seconds // 2)
    return ["--deadline", f"{max(1, seconds // 60)}m"]


def rayjob(name: str, shipment: Shipment, settings: Settings, suspend: bool) -> Json:
    spec = {"suspend": suspend, **rayjob_spec(name, shipment, settings)}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name}, "spec": spec}


def rayjob_spec(name: str, shipment: Shipment, settings: Settings) -> Json:
    return {
        "entrypoint": f"sh {RECIPES}/{SCRIPT}",
        "activeDeadlineSeconds": settings.deadline_seconds,
        "preRunningDeadlineSeconds": LATE_SECONDS,
        "backoffLimit": 0,
        "shutdownAfterJobFinishes": True,
        "submissionMode": "K8sJobMode",
        "submitterPodTemplate": {"spec": submitter(settings)},
        "rayClusterSpec": ray_cluster(name, shipment, settings),
    }


def submitter(settings: Settings) -> Json:
    """The pod whose log is the job's."""
    return {
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "ray-job-submitter",
                "image": settings.image,
                "resources": resources("500m", "512Mi"),
                "securityContext": NOBODY_ELSE,
            }
        ],
    }


def ray_cluster(name: str, shipment: Shipment, settings: Settings) -> Json:
    least, most = settings.workers
    scales = most > least
    head = pod(name, shipment, settings, "ray-head", resources("2", "8Gi"))
    if scales:
        head["automountServiceAccountToken"] = True  # the autoscaler beside the head asks for pods
    limits = resources(str(settings.cpus), settings.memory, settings.gpus)
    marked = {"labels": labels_of(shipment.recipe)}
    return {
        "rayVersion": installed_version("ray"),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": scales,
        **({"autoscalerOptions": {"securityContext": NOBODY_ELSE, "idleTimeoutSeconds": 120}} if scales else {}),
        # The driver has the head for itself.
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": {"metadata": marked, "spec": head}},
        "workerGroupSpecs": [
            {
                "groupName": "gpu" if settings.gpus else "cpu",
                "replicas": least,
                "minReplicas": least,
                "maxReplicas": most,
                "rayStartParams": {},
                "template": {"metadata": marked, "spec": pod(name, shipment, settings, "ray-worker", limits)},
            }
        ],
    }


def pod(name: str, shipment: Shipment, settings: Settings, container: str, limits: Json) -> Json:
    items = [{"key": key_of(path), "path": path} for path in (*shipment.files, SCRIPT)]
    return {
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": STOP_SECONDS,
        "securityContext": {"fsGroup": USER},
        "containers": [
            {
                "name": container,
                "image": settings.image,
                "env": [{"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": str(STOP_SECONDS)}],
                **({"envFrom": [{"secretRef": {"name": settings.secret}}]} if settings.secret else {}),
                "resources": limits,
                "securityContext": NOBODY_ELSE,
                "volumeMounts": [{"name": "recipe", "mountPath": RECIPES, "readOnly": True}],
            }
        ],
        "volumes": [{"name": "recipe", "configMap": {"name": f"{name}-recipe", "items": items}}],
    }


def resources(cpus: str, memory: str, gpus: int = 0) -> Json:
    """Requests and limits alike: Ray counts on what it is told."""
    most = {"cpu": cpus, "memory": memory, **({"nvidia.com/gpu": gpus} if gpus else {})}
    return {"requests": most, "limits": dict(most)}


def cron_job(name: str, recipe: Recipe, settings: Settings) -> Json:
    seconds, policy = settings.deadline_seconds, recipe.nightly or Nightly()
    program = ["python", "-m", "relabel.pipelines", "launch", name, "--deadline", f"{seconds}s",
               "--retries", str(settings.retries), "--time-zone", settings.time_zone,
               "--dates-in", policy.time_zone]  # fmt: skip
    told = {"JOB_NAME": "job-name", "JOB_UID": "controller-uid"}
    container = {
        "name": "launch",
        "image": settings.image,
        "command": program,
        "env": [
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['batch.kubernetes.io/{label}']"}}}
            for name, label in told.items()
        ],
        "resources": resources("100m", "256Mi"),
        "securityContext": {**NOBODY_ELSE, "readOnlyRootFilesystem": True},
    }
    job = {
        "activeDeadlineSeconds": seconds + LATE_SECONDS,
        "backoffLimit": 3,
        "podFailurePolicy": {
            "rules": [
                # What `launch` ends with is final; a pod that lost its node starts again and goes on waiting.
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": list(EXIT_CODES)}},
            ]
        },
        "template": {
            "metadata": {"labels": {"app.kubernetes.io/name": "relabel", "app.kubernetes.io/instance": name}},
            "spec": {
                "serviceAccountName": LAUNCH_ACCOUNT,
                "automountServiceAccountToken": True,
                "restartPolicy": "Never",
                "containers": [container],
            },
        },
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {
            "schedule": settings.schedule,
            "timeZone": settings.time_zone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 7,
            "failedJobsHistoryLimit": 7,
            "jobTemplate": {"spec": job},
        },
    }


def ray_cron_job(name: str, shipment: Shipment, settings: Settings) -> Json:
    """KubeRay's own schedule (alpha, behind a feature gate): two nights may overlap, and the store's lease decides."""
    spec = {
        "schedule": settings.schedule,
        "timeZone": settings.time_zone,
        "jobTemplate": rayjob_spec(name, shipment, settings),
    }
    return {"apiVersion": "ray.io/v1", "kind": "RayCronJob", "metadata": {"name": name}, "spec": spec}


class _Dumper(yaml.SafeDumper):
    """Long texts as they stand; no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def to_yaml(each: Json) -> str:
    return str(yaml.dump(each, Dumper=_Dumper, sort_keys=False, width=120))


def write(folder: Path, every: Sequence[Json], header: str) -> list[Path]:
    """A file per object and the kustomization.yaml that lists them."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {f"{each['kind'].lower()}-{each['metadata']['name']}.yaml": each for each in every}
    kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": list(texts)}
    texts["kustomization.yaml"] = kustomization
    for name, each in texts.items():
        (folder / name).write_text(f"{header}{to_yaml(each)}", encoding="utf-8")
    return [folder / name for name in texts]
