"""The names of switches that lldpd has heard."""

import json

from generator.activation import lldp


def answer(**names: str) -> str:
    """Return the part of `lldpcli -f json0 show neighbors` that matters."""
    interfaces = [
        {"name": nic, "chassis": [{"id": [{"type": "mac"}], "name": [{"value": name}]}]}
        for nic, name in names.items()
    ]
    return json.dumps({"lldp": [{"interface": interfaces}]})


def test_each_nic_has_the_name_of_its_switch() -> None:
    """Each NIC has the name of its switch; one without a name is left out."""
    switches = lldp.decode(answer(ens4="ns-leaf-0", ens5="ns-leaf-1", ens6=""))
    assert switches == {"ens4": "ns-leaf-0", "ens5": "ns-leaf-1"}


def test_a_name_is_safe_for_a_terminal() -> None:
    """Whatever a neighbor sends, its name is safe for a terminal."""
    assert lldp.decode(answer(ens4="a\x1b[2J\nb")) == {"ens4": "a\\x1b[2J\\nb"}


def test_any_other_answer_gives_no_names() -> None:
    """Without a neighbor, or with any other output of lldpcli, there are no names."""
    assert lldp.decode('{"lldp": [{}]}') == {}
    assert lldp.decode("") == {}
    assert lldp.decode('{"lldp": 3}') == {}
