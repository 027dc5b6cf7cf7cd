"""preflight names rules that translate addresses of a V-Net."""

from pathlib import Path

import pytest

from generator.activation import commands, nat
from generator.activation.commands import Step
from generator.errors import NotInstalled

GATEWAYS = ["172.17.0.254/16", "10.26.0.1/24", "fd00:26::1/64"]
# A rule of iptables-nft in `nft list ruleset`.
RULES = """\
table ip nat {
	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		%s
	}
	chain OUTPUT {
		type nat hook output priority -100; policy accept;
		ip saddr 10.26.0.0/24 counter packets 0 bytes 0 masquerade
	}
}
"""


def findings(
    monkeypatch: pytest.MonkeyPatch, folder: Path, rule: str, tool: str = "nft"
) -> list[str]:
    """Return the findings about a rule, of nftables or of iptables-legacy."""
    legacy = folder / "ip_tables_names"
    legacy.write_text("filter\nnat\n")

    def run(step: Step, log: object) -> str:
        del log
        if step.argv[0] != tool:
            raise NotInstalled(step.argv[0])
        return RULES % rule if tool == "nft" else f"-P POSTROUTING ACCEPT\n{rule}\n"

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr(nat, "_NF_TABLES", folder)
    monkeypatch.setattr(nat, "_LEGACY", {"iptables": str(legacy)})
    return [finding.what for finding in nat.findings(GATEWAYS, commands.silent, filtered=True)]


TAKES_IN = {
    'ip saddr 172.17.0.0/16 oifname != "docker0" counter masquerade': "172.17.0.0/16",
    "ip saddr 10.0.0.0/8 masquerade": "10.26.0.0/24",
    "ip6 saddr fd00::/8 snat to fd00::1": "fd00:26::/64",
    'oifname "nbr-26" ip saddr 10.26.0.9 masquerade': "10.26.0.0/24",
}


@pytest.mark.parametrize("rule", TAKES_IN)
def test_a_rule_that_translates_a_vnet_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rule: str
) -> None:
    """The finding has the V-Net's prefix and the rule."""
    assert findings(monkeypatch, tmp_path, rule) == [
        f"a rule translates addresses of {TAKES_IN[rule]}: {rule}"
    ]


@pytest.mark.parametrize(
    "rule",
    [
        "ip saddr 192.168.122.0/24 masquerade",  # another prefix
        'oifname "ens6" masquerade',  # no guest's packet leaves there
        'oifname "nbr-*" accept\n\t\tip saddr 172.17.0.0/16 masquerade',  # exempted
        "ip saddr 172.17.0.0/16 counter packets 1 bytes 60 accept",  # translates nothing
    ],
)
def test_a_rule_that_translates_no_guest_is_not_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rule: str
) -> None:
    """There is no finding about a rule that translates no guest."""
    assert findings(monkeypatch, tmp_path, rule) == []


def test_rules_of_iptables_legacy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rules of iptables-legacy are read only where the kernel has them."""
    docker = "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"
    [finding] = findings(monkeypatch, tmp_path, docker, "iptables-legacy")
    assert finding == f"a rule translates addresses of 172.17.0.0/16: {docker}"
    assert not findings(
        monkeypatch, tmp_path, f"-A POSTROUTING -o nbr-+ -j RETURN\n{docker}", "iptables-legacy"
    )
