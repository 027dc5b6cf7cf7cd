"""Alert rules and dashboard of examples/monitoring: each metric and label that they name exists."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from ruamel.yaml import YAML

from generator.desired.model import Device
from generator.observed.health import Word
from generator.reporting import metrics
from tests.conftest import REPO
from tests.test_metrics import STATUS, promtool

__all__ = ["promtool"]  # a fixture

FOLDER = REPO / "examples/monitoring"
RULES, DASHBOARD = FOLDER / "evpn-host.rules.yml", FOLDER / "evpn-host.dashboard.json"
PAGE = REPO / "docs/monitoring.md"
ALERTS = REPO / "tests/monitoring/alerts.yml"
OF_PROMETHEUS = {"instance", "job"}  # labels that a scrape adds
# The values that labels can have, of those with few.
VALUES = {
    "health": set(get_args(Word)),
    "family": {"ipv4_unicast", "l2vpn_evpn"},
    "kind": set(get_args(Device.__annotations__["kind"])),
    "state": {"Established"},  # the one word of FRR that a query compares with
}
SELECTOR = re.compile(r"\b(evpn_host_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
AGGREGATION = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right) \(([^)]*)\)")


@pytest.fixture
def known(tmp_path: Path) -> dict[str, set[str]]:
    """Return the labels of each metric, by its name."""
    metrics.write(tmp_path, "evpn-host.prom", STATUS, 1000, good=True)
    labels: dict[str, set[str]] = {}
    for line in (tmp_path / "evpn-host.prom").read_text().splitlines():
        if not line.startswith("#"):
            name, _, rest = line.partition("{")
            inside = set(re.findall(r'(\w+)="', rest)) if rest else set()
            labels[name.partition(" ")[0]] = inside
    return labels


def rules() -> list[Any]:
    (group,) = YAML(typ="safe").load(RULES.read_text())["groups"]
    return list(group["rules"])


def panels() -> list[Any]:
    return list(json.loads(DASHBOARD.read_text())["panels"])


def queries() -> Iterator[tuple[str, str]]:
    """Yield each query with its place."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]


def faults(query: str, known: dict[str, set[str]]) -> Iterator[str]:
    """Yield the names in a query that no host has."""
    labels = set(OF_PROMETHEUS)
    for name, matchers in SELECTOR.findall(query):
        if name not in known:
            yield name
            continue
        labels |= known[name]
        for label, operator, text in MATCHER.findall(matchers):
            if label not in known[name] | OF_PROMETHEUS:
                yield f"{name}{{{label}}}"
            values = set(text.split("|") if operator in {"=~", "!~"} else [text])
            if label in VALUES and not values <= VALUES[label]:
                yield f'{name}{{{label}="{text}"}}'
    for names in AGGREGATION.findall(query):
        yield from sorted(set(re.findall(r"\w+", names)) - labels)


def test_each_metric_and_label_exists(known: dict[str, set[str]]) -> None:
    """A host writes each metric, label and value that alerts and panels name."""
    missing = [(place, fault) for place, query in queries() for fault in faults(query, known)]
    assert missing == []
    assert len(list(queries())) > 20


@pytest.mark.parametrize(
    ("query", "fault"),
    {
        "evpn_host_helth == 1": "evpn_host_helth",
        'evpn_host_health{word="ok"}': "evpn_host_health{word}",
        'evpn_host_health{health="okay"}': 'evpn_host_health{health="okay"}',
        'evpn_host_health{health=~"ok|okay"}': 'evpn_host_health{health="ok|okay"}',
        "sum by (famly) (evpn_host_sessions)": "famly",
    }.items(),
)
def test_a_wrong_name_is_found(known: dict[str, set[str]], query: str, fault: str) -> None:
    """The test above would find a wrong name."""
    assert list(faults(query, known)) == [fault]


def test_the_page_lists_each_metric_and_alert(known: dict[str, set[str]]) -> None:
    """docs/monitoring.md has all of them, and no others."""
    text = PAGE.read_text()
    table = text.partition("| metric | |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE)[1:]
    spans = [span for cell in cells for span in re.findall(r"`(\w+)(?:\{([^}]*)\})?`", cell)]
    listed = {
        name: set(re.findall(r"[a-z]+", re.sub(r'="…"', "", inside))) for name, inside in spans
    }
    assert listed == known
    table = text.partition("| alert | |")[2].partition("\n\n")[0]
    named = re.findall(r"`(EvpnHost\w+)`", table)
    assert sorted(named) == sorted(rule["alert"] for rule in rules())


def test_each_alert_says_whose_it_is() -> None:
    """Each alert names its host, how urgent it is, and where to look."""
    for rule in rules():
        assert rule["annotations"]["summary"].startswith("{{ $labels.instance }}: ")
        assert len(rule["annotations"]["description"]) > 30
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}


def _promtool(*argv: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in argv]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


def test_promtool_accepts_the_rules(promtool: str) -> None:
    """`promtool check rules` finds no fault."""
    result = _promtool(promtool, "check", "rules", RULES, cwd=FOLDER)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"SUCCESS: {len(rules())} rules found" in result.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("", ""), ('{health="ok"}', '{health="waiting"}'), ("[1h]) > 5", "[1h]) > 500")],
    ids=["all", "too many", "too few"],
)
def test_each_alert_is_raised_for_its_host(
    promtool: str, tmp_path: Path, right: str, wrong: str
) -> None:
    """A host with one fault raises the alert for it and no other; a good host raises none."""
    text = RULES.read_text()
    assert right in text
    (tmp_path / RULES.name).write_text(text.replace(right, wrong) if right else text)
    shutil.copy(ALERTS, tmp_path)
    result = _promtool(promtool, "test", "rules", ALERTS.name, cwd=tmp_path)
    assert bool(result.returncode) == bool(right), result.stdout + result.stderr
    for rule in rules():
        assert f'alertname="{rule["alert"]}"' in ALERTS.read_text()


def test_promtool_reads_each_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    """promtool accepts each query of the dashboard, with a host in place of Grafana's variable."""
    rules_ = [
        {"record": f"panel:{number}", "expr": query.replace("$instance", "host")}
        for number, (_, query) in enumerate(queries())
    ]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules_}]}))
    result = _promtool(promtool, "check", "rules", file, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"SUCCESS: {len(rules_)} rules found" in result.stdout


def test_the_dashboard_is_whole() -> None:
    """Panels do not overlap, and all queries use the dashboard's variables."""
    dashboard = json.loads(DASHBOARD.read_text())
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)", DASHBOARD.read_text()))
    assert used == variables == {"datasource", "instance"}
    assert dashboard["uid"]
    assert "id" not in dashboard  # Grafana would overwrite a dashboard of the same number
    assert len({panel["id"] for panel in panels()}) == len(panels()) > 8
    occupied: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel["title"]
        assert panel["description"] or panel["type"] == "stat"
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & occupied, panel["title"]
        occupied |= own
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        for target in panel["targets"]:
            assert 'instance=~"$instance"' in target["expr"], panel["title"]
            assert (
                target["datasource"]
                == panel["datasource"]
                == {
                    "type": "prometheus",
                    "uid": "${datasource}",
                }
            )
