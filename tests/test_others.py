"""The operator's file that may reset a device is named."""

from pathlib import Path

import pytest

from generator.observed import others
from generator.observed.devices import Difference

MTU = Difference("nbr-26", "mtu is 1400, not 1500", what="mtu")
ADDRESS = Difference("nbr-26", "has the address 10.9.0.1/24", what="address 10.9.0.1/24")
GONE = Difference("nbr-26", "is not there")


@pytest.mark.parametrize(
    ("text", "difference", "message"),
    [
        ("network: {bridges: {nbr-26: {mtu: 1400}}}", MTU, "its mtu"),
        ("iface nbr-26\n    mtu 1400\n", MTU, "its mtu"),
        ("[Match]\nName=nbr-26\n[Link]\nMTUBytes=1400\n", MTU, "its mtu"),
        ("iface nbr-26\n    address 10.9.0.1/24\n", ADDRESS, "its address 10.9.0.1/24"),
        ("network: {bridges: {nbr-260: {mtu: 1400}}}", MTU, ""),
        ("network: {bridges: {nbr-26: {addresses: []}}}", MTU, ""),
        ("iface nbr-26\n    address 10.9.0.1/24\n", MTU, ""),
        ("# iface nbr-26\n#    mtu 1400\n", MTU, ""),
        ("iface nbr-26\n    mtu 1400\n", GONE, ""),
        ("# Written by evpn-host from payload generation 1; edits are lost.\nnbr-26 mtu", MTU, ""),
    ],
)
def test_the_operators_file_that_resets_a_device_is_named(
    tmp_path: Path, text: str, difference: Difference, message: str
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/theirs").write_text(text)
    expected = [f"/etc/theirs names nbr-26 and {message} too"] if message else []
    assert others.setters(tmp_path, ["etc/*"], [difference]) == expected
