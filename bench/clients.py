"""What a client that lists both nodes' addresses itself loses beyond the failover, and what helps it."""

import outage

FAULTS = ["dead"]


def measure():
    outage.measure(faults=FAULTS, clients=list(outage.CLIENTS), name="clients")


def describe(lines):
    """One table: all clients have seen the same faults."""
    return outage.describe_clients(lines)
