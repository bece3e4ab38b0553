"""A link with latency, where the kernel has none to offer (sch_netem): two interfaces, and this program carries the packets from one to the other.

Usage: ip netns exec NAMESPACE slow_link.py NEAR FAR MILLISECONDS    NEAR: the descriptor of an interface of the other side, inherited; FAR: the name of
                                                                    the one to be made here. What comes from FAR waits; what goes there does not.
"""

import collections
import contextlib
import fcntl
import os
import select
import struct
import sys
import time

# linux/if_tun.h
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
# Large packets are few: what this program costs is hardly seen beside what is measured.
MTU = 65_000
# Packets read in one turn.
MANY = 64


def interface(name):
    """Makes an interface in this network; it goes when the descriptor does."""
    handle = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return handle


def write(target, packet):
    # An interface that is not up yet, or whose queue is full, loses packets, as any link does.
    with contextlib.suppress(OSError):
        os.write(target, packet)


def waiting_packets(source):
    """Some of those that wait to be read; the other way has its turn too."""
    with contextlib.suppress(BlockingIOError):
        for _ in range(MANY):
            yield os.read(source, MTU)


def carry(near, far, seconds):
    """Both ways in one thread: two would wait for each other's hold of the interpreter, for longer than a packet takes."""
    late = collections.deque()
    for handle in (near, far):
        os.set_blocking(handle, False)
    while True:
        select.select((near, far), (), (), max(0.0, late[0][0] - time.monotonic()) if late else None)
        due = time.monotonic() + seconds
        late.extend((due, packet) for packet in waiting_packets(far))
        for packet in waiting_packets(near):
            write(far, packet)
        while late and late[0][0] <= time.monotonic():
            write(near, late.popleft()[1])


if __name__ == "__main__":
    carry(int(sys.argv[1]), interface(sys.argv[2]), float(sys.argv[3]) / 1000)
