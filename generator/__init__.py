"""evpn-host: makes a Linux server a VTEP of an EVPN/VXLAN fabric."""

__version__ = "0.1.0"
