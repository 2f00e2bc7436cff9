"""Manifests: what `relabel manifest` prints is what Kubernetes and KubeRay take, deploy/ is what it prints, and who
runs has no right too many.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kube_schemas import complaints
from plugin_files import write_plugin

from pipelines.command_line import main
from pipelines.loading import load
from pipelines.manifests import MAX_NAME, label_value, name_of

NIGHTLY = ("--schedule", "0 2 * * *")
KUBERNETES = "1.32"
"""The oldest whose schemas are asked."""

Print = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A recipe with a plugin and a taxonomy beside it."""
    path = tmp_path / "here" / "maps.yaml"
    path.parent.mkdir()
    path.write_text(
        "name: maps\nsource: s3://bucket/*.tar\nstore: s3://bucket/labels\n"
        "steps: [label_map: {model: efficientnet-lite0, input_size: 320}]\n"
    )
    return path


@pytest.fixture
def printed(written: Path, capfd: pytest.CaptureFixture[str]) -> Print:
    def manifests(*arguments: str, recipe: Path = written) -> list[dict[str, Any]]:
        assert main(["manifest", str(recipe), *arguments]) == 0
        return list(yaml.safe_load_all(capfd.readouterr().out))

    return manifests


def check(every: list[dict[str, Any]]) -> None:
    """Every object against its strict schema."""
    for each in every:
        if each["apiVersion"].startswith("ray.io/"):
            assert complaints(each) == []
        else:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


def kinds(every: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in every}


CASES: dict[str, list[str]] = {
    "once": [],
    "nightly": [*NIGHTLY, "--time-zone", "Europe/Berlin"],
    "cpus": [*NIGHTLY, "--gpus", "0", "--cpus", "8", "--memory", "32Gi", "--workers", "2:8", "--secret", "bucket"],
    "ray_cron": [*NIGHTLY, "--ray-cron", "--namespace", "relabel"],
}


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
def test_what_is_printed_is_valid(printed: Print, arguments: list[str]) -> None:
    check(printed(*arguments))


def test_the_schemas_find_what_is_wrong(printed: Print) -> None:
    every = kinds(printed(*NIGHTLY))
    every["CronJob/relabel-maps"]["spec"]["concurrencyPolice"] = "Forbid"
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        kubernetes_validate.validate(every["CronJob/relabel-maps"], KUBERNETES, strict=True)
    rayjob = every["RayJob/relabel-maps"]
    rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Never"
    rayjob["spec"]["suspend"] = "yes"
    assert len(complaints(rayjob)) == 2


def test_a_night_starts_a_dated_copy_of_a_suspended_rayjob(printed: Print) -> None:
    every = kinds(printed(*NIGHTLY, "--deadline", "6h", "--time-zone", "Europe/Berlin"))
    cron, rayjob = every["CronJob/relabel-maps"]["spec"], every["RayJob/relabel-maps"]["spec"]
    assert (cron["schedule"], cron["timeZone"], cron["concurrencyPolicy"]) == ("0 2 * * *", "Europe/Berlin", "Forbid")
    assert rayjob["suspend"]
    assert rayjob["shutdownAfterJobFinishes"]
    assert rayjob["activeDeadlineSeconds"] == 6 * 3600 < cron["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    said = every["ConfigMap/relabel-maps-recipe"]["data"]["relabel.sh"].splitlines()[-1]
    assert said == 'exec python -m relabel.pipelines nightly maps.yaml --address auto --deadline 345m "$@"'
    command = cron["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[3:5] == ["launch", "relabel-maps"]
    assert command[command.index("--deadline") + 1] == "21600s"
    assert command[command.index("--dates-in") + 1] == "UTC", "a date is what `nightly` takes for one"
    there = kinds(printed(*NIGHTLY, "--set", "nightly.time_zone=Asia/Tokyo"))["CronJob/relabel-maps"]["spec"]
    assert there["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"][-2:] == [
        "--dates-in", "Asia/Tokyo",
    ]  # fmt: skip


def test_rights_are_the_least(printed: Print) -> None:
    every = kinds(printed(*NIGHTLY))
    [rule] = every["Role/relabel-launch"]["rules"]
    assert rule == {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]}
    assert [each["name"] for each in every["RoleBinding/relabel-launch"]["subjects"]] == ["relabel-launch"]
    pods = list(pod_specs(list(every.values())))
    assert len(pods) == 4
    for pod in pods:
        launch = pod.get("serviceAccountName") == "relabel-launch"
        assert pod["automountServiceAccountToken"] is launch
        for container in pod["containers"]:
            context = container["securityContext"]
            assert (context["runAsNonRoot"], context["allowPrivilegeEscalation"]) == (True, False)
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}


def pod_specs(node: Any) -> Any:
    if isinstance(node, dict):
        if "containers" in node:
            yield node
        for each in node.values():
            yield from pod_specs(each)
    elif isinstance(node, list):
        for each in node:
            yield from pod_specs(each)


def test_every_file_of_the_recipe_is_mounted_where_it_says(
    written: Path, printed: Print, monkeypatch: pytest.MonkeyPatch, forget_plugins: Callable[[], None]
) -> None:
    write_plugin(written.parent.parent / "mine" / "mounted_bytes.py", "mounted_bytes")
    text = written.read_text() + "plugins: [../mine/mounted_bytes.py]\n"
    written.write_text(text)
    monkeypatch.chdir(written.parent)
    every = kinds(printed())
    data = every["ConfigMap/relabel-maps-recipe"]["data"]
    head = every["RayJob/relabel-maps"]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    [volume] = head["volumes"]
    placed = {item["path"]: data[item["key"]] for item in volume["configMap"]["items"]}
    assert placed.keys() == {"here/maps.yaml", "mine/mounted_bytes.py", "relabel.sh"}
    assert placed["here/maps.yaml"] == text
    assert placed["relabel.sh"].splitlines()[2] == "cd here"
    check(list(every.values()))


RAY = """#!{python}
import subprocess, sys
print("submitted", flush=True)  # as `ray job submit` does with what follows `--`, and the head with that
sys.exit(subprocess.call(subprocess.list2cmdline(sys.argv[sys.argv.index("--") + 1 :]), shell=True))
"""
PYTHON = """#!{python}
import json, os, sys
print(json.dumps([os.path.basename(os.getcwd()), *sys.argv[1:]]))
sys.exit(3)
"""


def test_what_the_head_runs_outlives_both_shells(written: Path, printed: Print, tmp_path: Path) -> None:
    """KubeRay writes the entrypoint into a script of the pod that submits: what stands after `&&` would run there."""
    hostile = 'gate.expect_change=it\'s $HOME, "`id`" & more; *'
    every = kinds(printed(*NIGHTLY, "--set", hostile))
    rayjob, data = every["RayJob/relabel-maps"]["spec"], every["ConfigMap/relabel-maps-recipe"]["data"]
    [volume] = rayjob["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
    mounted = tmp_path / "mounted"
    for item in volume["configMap"]["items"]:
        (mounted / item["path"]).parent.mkdir(parents=True, exist_ok=True)
        (mounted / item["path"]).write_text(data[item["key"]])
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {"ray": RAY, "python": PYTHON}.items():
        (programs / name).write_text(text.format(python=sys.executable))
        (programs / name).chmod(0o755)
    entrypoint = rayjob["entrypoint"].replace("/etc/relabel", str(mounted)) + " --date 2026-11-30"
    done = subprocess.run(
        ["/bin/bash", "-ce", "--", f"if true ; then ray job submit --no-wait --submission-id x -- {entrypoint} ; fi"],
        env={"PATH": f"{programs}:/usr/bin:/bin"}, capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    submitted, said = done.stdout.splitlines()
    assert submitted == "submitted"
    assert json.loads(said) == [
        "mounted", "-m", "relabel.pipelines", "nightly", "maps.yaml", "--address", "auto", "--set", hostile,
        "--deadline", "465m", "--date", "2026-11-30",
    ]  # fmt: skip


def test_variables_that_nobody_sets_are_named(written: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["manifest", str(written), *NIGHTLY, "--set", "nightly.notify=${HOOK}"]
    for secret, said in (([], "needs HOOK in the environment of the pods"), (["--secret", "bucket"], "")):
        assert main([*arguments, *secret]) == 0
        err = capfd.readouterr().err
        assert said in err if said else not err


def test_a_file_may_not_have_the_name_of_what_starts_it(written: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest", str(written.rename(written.with_name("relabel.sh"))), "--json"]) == 2
    assert "a file of the recipe is called relabel.sh" in capfd.readouterr().out


def test_what_lies_in_deploy_is_what_is_printed(root: Path, tmp_path: Path) -> None:
    """`make manifests` writes it anew."""
    recipe = root / "deploy" / "kubernetes" / "recipe.yaml"
    for folder, arguments in (("base", NIGHTLY), ("raycronjob", (*NIGHTLY, "--ray-cron"))):
        main(["manifest", str(recipe), *arguments, "--out", str(tmp_path / folder)])
        there = {path.name: path.read_text() for path in (root / "deploy" / "kubernetes" / folder).iterdir()}
        assert there == {path.name: path.read_text() for path in (tmp_path / folder).iterdir()}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here")
@pytest.mark.parametrize("folder", ["base", "raycronjob", "overlays/cpu", "overlays/gpu"])
def test_kustomize_builds_valid_objects(root: Path, folder: str) -> None:
    command = ["kubectl", "kustomize", str(root / "deploy" / "kubernetes" / folder)]
    built = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    every = list(yaml.safe_load_all(built.stdout))
    check(every)
    images = set(re.findall(r"image: (\S+)", built.stdout))
    assert len(images) == 1
    if folder.startswith("overlays/"):
        assert images.pop().startswith("registry.example.com/relabel:")
        assert {each["metadata"]["namespace"] for each in every} == {"relabel"}
        assert ("nvidia.com/gpu" in built.stdout) == (folder == "overlays/gpu")


def test_no_file_of_deploy_holds_a_secret(root: Path) -> None:
    text = "\n".join(path.read_text() for path in (root / "deploy").rglob("*") if path.is_file())
    assert not re.search(r"AKIA|ASIA|BEGIN [A-Z ]*PRIVATE KEY|kind: Secret|password|://[^\s/]*:[^\s/]*@", text)


def test_names_fit_and_stay_apart() -> None:
    step = {"label_map": {"model": "efficientnet-lite0", "input_size": 64}}
    given = ("maps", "Maps", "m.a_ps", "x" * 60, "x" * 61, "relabel")
    recipes = [{"name": name, "source": "a/*.tar", "steps": [step], "store": "b"} for name in given]
    names = [name_of(load(recipe)) for recipe in recipes]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name) and len(name) <= MAX_NAME for name in names)
    assert label_value("Vision & Språk / team " + "x" * 80).startswith("Vision-Spr-k-team-x")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--schedule", "nightly"], "five fields"),
        (["--time-zone", "Berlin"], "Europe/Berlin"),
        (["--workers", "4:2"], "LEAST:MOST"),
        (["--memory", "lots"], "16Gi"),
        (["--deadline", "8"], "8h"),
    ],
)
def test_wrong_options_say_what_is_expected(
    written: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["manifest", str(written), *arguments])
    assert ended.value.code == 2
    assert said in capfd.readouterr().err


def test_a_store_in_the_jobs_own_folder_is_refused(written: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest", str(written), "--set", "store=labels", "--json"]) == 2
    told = capfd.readouterr()
    assert json.loads(told.out)["exit_code"] == 2
    assert "store.url: 'labels' is relative" in told.err
