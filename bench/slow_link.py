"""A link with latency, where the kernel has none to offer (sch_netem): two interfaces, and this program carries the packets from one to the other.

Usage: ip netns exec NAMESPACE slow_link.py NEAR FAR MILLISECONDS    NEAR: the descriptor of an interface of the other side, inherited; FAR: the name of
                                                                    the one to be made here. What comes from FAR waits; what goes there does not.
"""

import contextlib
import fcntl
import os
import queue
import struct
import sys
import threading
import time

# linux/if_tun.h
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
# Large packets are few: what this program costs is hardly seen beside what is measured.
MTU = 65_000


def interface(name):
    """Makes an interface in this network; it goes when the descriptor does."""
    handle = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return handle


def write(target, packet):
    # An interface that is not up yet, or whose queue is full, loses packets, as any link does.
    with contextlib.suppress(OSError):
        os.write(target, packet)


def carry(source, target):
    while True:
        write(target, os.read(source, MTU))


def carry_late(source, target, seconds):
    waiting = queue.SimpleQueue()

    def deliver():
        while True:
            due, packet = waiting.get()
            time.sleep(max(0.0, due - time.monotonic()))
            write(target, packet)

    threading.Thread(target=deliver, daemon=True).start()
    while True:
        packet = os.read(source, MTU)
        waiting.put((time.monotonic() + seconds, packet))


if __name__ == "__main__":
    near, far = int(sys.argv[1]), interface(sys.argv[2])
    threading.Thread(target=carry, args=(near, far), daemon=True).start()
    carry_late(far, near, float(sys.argv[3]) / 1000)
