"""What is under deploy/ fits together: the metrics there are, the queries, the alerts and their pages, the manifests.

What needs a program or a package that is not there is skipped: promtool, kubectl, systemd-analyze, kubernetes_validate,
and the build's fisherd.
"""

import functools
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus/rules.yml"
KUBERNETES = DEPLOY / "kubernetes"
KUBERNETES_VERSIONS = ("1.28", "1.31", "1.34")


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def run(*command, **kwargs):
    """Run a program, if it is there, and return what it says; its complaint is the assertion's."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here")
    done = subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules():
    return [rule for group in load(RULES)["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


# ---- Metrics and queries


def metrics():
    """Return what may stand in a query: the names in metrics.txt, a histogram's with its suffixes."""
    names = set()
    for line in (DEPLOY / "metrics.txt").read_text(encoding="utf-8").splitlines():
        name, kind = line.split()
        assert kind in {"counter", "gauge", "histogram"}, line
        assert (kind == "counter") == name.endswith("_total"), line
        names |= {name + suffix for suffix in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
    return names


WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}


def names_in(query):
    """Return the metrics that a PromQL query reads."""
    query = re.sub(r'"(?:[^"\\]|\\.)*"', " ", query)
    query = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", query)
    query = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", query)
    query = re.sub(r"\b\d[\w.]*", " ", query)
    return {name for name in re.findall(r"[a-zA-Z_:][\w:]*\b(?!\s*\()", query) if name.lower() not in WORDS}


def test_names_in_a_query():
    query = 'sum by (le, phase) (rate(a_bucket{x="}b{"}[5m] offset 16m)) / ignoring (x) fisherd:c > 2e9 and "d" == 1.5'
    assert names_in(query) == {"a_bucket", "fisherd:c"}


def panels(dashboard):
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


DASHBOARD = json.loads((DEPLOY / "grafana/fisherd.json").read_text(encoding="utf-8"))


def test_rules_read_what_there_is():
    records = [rule["record"] for rule in rules() if "record" in rule]
    assert len(set(records)) == len(records)
    known = metrics() | set(records) | {"up"}
    for rule in rules():
        assert names_in(rule["expr"]) - known == set(), rule


def test_dashboard_reads_what_there_is():
    queries = [target["expr"] for panel in panels(DASHBOARD) for target in panel.get("targets", [])]
    queries += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    used = set().union(*map(names_in, queries))
    assert used - metrics() == set()
    # And shows everything; of a histogram the buckets do.
    assert {name for name in metrics() - used if not name.endswith(("_sum", "_count"))} == set()
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            selector = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])[1]
            assert names_in(selector) <= metrics()


def test_dashboard_is_whole():
    assert DASHBOARD["schemaVersion"] >= 39
    ids = [panel["id"] for panel in panels(DASHBOARD)]
    assert len(set(ids)) == len(ids)
    places = set()
    for panel in panels(DASHBOARD):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & places, panel["title"]
        places |= cells
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


# ---- Alerts


@pytest.mark.parametrize("name", ALERTS)
def test_alert(name):
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    page, anchor = alert["annotations"]["runbook_url"].split("#")
    assert anchor == name.lower()
    text = (ROOT / page).read_text(encoding="utf-8")
    section = re.search(rf"^### {name}\n+(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    assert section, f"{page} has no heading ### {name}"
    assert len(section.group(1).split()) >= 20, f"{page}: {name}: what it means and what to do"


def test_every_alert_section_is_an_alerts():
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^### (Fisherd\w+)$", page, re.MULTILINE)) == set(ALERTS)


def test_every_alert_fires_and_does_not_fire():
    cases = [
        case for test in load(RULES.with_name("rules_test.yml"))["tests"] for case in test.get("alert_rule_test", [])
    ]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(ALERTS)
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(ALERTS)


def test_rules_with_promtool():
    run("promtool", "check", "config", str(RULES.with_name("scrape.yml")))
    run("promtool", "test", "rules", str(RULES.with_name("rules_test.yml")))


# ---- Kubernetes


@functools.cache
def rendered(name):
    """Return the resources of a base or an overlay, or of the base with a component."""
    return list(yaml.safe_load_all(run("kubectl", "kustomize", str(KUBERNETES / name))))


def of_kind(resources, kind):
    return [resource for resource in resources if resource["kind"] == kind]


@pytest.mark.parametrize("path", sorted(KUBERNETES.rglob("kustomization.yaml")), ids=lambda path: path.parent.name)
def test_kustomization_names_what_there_is(path):
    kustomization = load(path)
    named = list(kustomization.get("resources", []))
    named += [patch["path"] for patch in kustomization.get("patches", [])]
    named += [file for generator in kustomization.get("configMapGenerator", []) for file in generator["files"]]
    assert [name for name in named if not (path.parent / name).exists()] == []
    there = {file.name for file in path.parent.iterdir()} - {path.name}
    assert there == {name for name in named if "/" not in name}


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("name", ["base", "overlays/tls"])
def test_manifests_have_kubernetes_schema(name, version):
    validate = pytest.importorskip("kubernetes_validate")
    for resource in rendered(name):
        validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("name", ["base", "overlays/tls"])
def test_pod_is_confined(name):
    (stateful_set,) = of_kind(rendered(name), "StatefulSet")
    pod = stateful_set["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/var/lib/fisherd"]


def test_pod_budgets_follow_its_memory():
    (stateful_set,) = of_kind(rendered("base"), "StatefulSet")
    (config,) = of_kind(rendered("base"), "ConfigMap")
    settings = yaml.safe_load(config["data"]["fisherd.yaml"])
    pod = stateful_set["spec"]["template"]["spec"]
    resources = pod["containers"][0]["resources"]
    assert resources["limits"]["memory"] == resources["requests"]["memory"]
    memory = int(resources["limits"]["memory"].removesuffix("Gi"))
    assert settings["state-budget"] == f"{memory // 2}GiB"
    assert settings["batch-budget"] == f"{memory // 4}GiB"
    assert pod["terminationGracePeriodSeconds"] > 2 * int(settings["shutdown-grace"].removesuffix("s"))


def test_tls_overlay_is_not_in_the_clear():
    (stateful_set,) = of_kind(rendered("overlays/tls"), "StatefulSet")
    pod = stateful_set["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert environment["FISHERD_INSECURE"] == "false"
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    for name in ("FISHERD_TLS_CERT", "FISHERD_TLS_KEY", "FISHERD_IDENTITIES"):
        assert str(pathlib.PurePath(environment[name]).parent) in mounts


def test_monitoring_component(tmp_path):
    def relative(path):
        return os.path.relpath(KUBERNETES / path, tmp_path)

    overlay = {"resources": [relative("base")], "components": [relative("components/monitoring")]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    resources = list(yaml.safe_load_all(run("kubectl", "kustomize", str(tmp_path))))
    (monitor,) = of_kind(resources, "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    scraped = [
        service["metadata"]["name"]
        for service in of_kind(resources, "Service")
        if wanted <= service["metadata"]["labels"].items()
        and endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    ]
    assert scraped == ["fisherd-headless"]  # and no server twice
    assert {
        service["metadata"]["labels"][monitor["spec"]["jobLabel"]] for service in of_kind(resources, "Service")
    } == {"fisherd"}


# ---- Compose, systemd, settings


def test_compose_mounts_and_builds_what_there_is():
    path = DEPLOY / "compose/docker-compose.yml"
    services = load(path)["services"]
    assert set(services) == {"fisherd", "trainer", "prometheus"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (path.parent / source).is_dir(), volume
    assert (path.parent / services["fisherd"]["build"] / "Dockerfile").exists()
    (job,) = load(DEPLOY / "prometheus/scrape.yml")["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["fisherd:7601"]


def test_unit_with_systemd(tmp_path):
    unit = (DEPLOY / "systemd/fisherd.service").read_text(encoding="utf-8")
    installed = tmp_path / "fisherd.service"
    installed.write_text(unit.replace("/usr/local/bin/fisherd", "/bin/true"), encoding="utf-8")
    run("systemd-analyze", "verify", "--man=no", str(installed))
    run("systemd-analyze", "security", "--offline=true", "--threshold=20", str(installed))


def settings():
    """Yield what each way to run the server tells it: arguments and variables."""
    yield load(DEPLOY / "compose/docker-compose.yml")["services"]["fisherd"]["command"], {}

    unit = (DEPLOY / "systemd/fisherd.service").read_text(encoding="utf-8")
    variables = re.search(r"^Environment=(.*)$", unit, re.MULTILINE)[1].replace("%S", "/var/lib").split()
    yield [], dict(variable.split("=", 1) for variable in variables)

    (container,) = load(KUBERNETES / "base/stateful_set.yaml")["spec"]["template"]["spec"]["containers"]
    mounted = str(KUBERNETES / "base/fisherd.yaml")
    arguments = [argument.replace("/etc/fisherd/config/fisherd.yaml", mounted) for argument in container["args"]]
    yield arguments, {variable["name"]: variable.get("value", "4") for variable in container["env"]}


@pytest.mark.parametrize(("arguments", "variables"), list(settings()), ids=["compose", "systemd", "pod"])
def test_server_understands(arguments, variables):
    binary = os.environ.get("FISHERD_BINARY", str(ROOT / "build/release/server/fisherd"))
    assert run(binary, "--check-config", *arguments, env=variables) == "good\n"
