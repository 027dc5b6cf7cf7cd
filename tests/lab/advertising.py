"""A router that advertises itself and a prefix of its own (RFC 4861, 4.2 and 4.6.2)."""

ADVERTISE = """
import socket, struct
sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
message += struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0)
message += socket.inet_pton(socket.AF_INET6, "fd00:bad::")
for _ in range(3):
    sender.sendto(message, ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))
"""
"""A script for Python, which sends three advertisements on eth0."""
