"""Which process has accepted a connection: the kernel knows, whatever the server is."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

ESTABLISHED = "01"


def accepted(client: int, port: int, servers: Iterable[int]) -> Counter[int]:
    """How many connections of the process `client` to `port` each of the processes `servers` has accepted.

    One that nobody has accepted yet, or whose process is not among these, is not counted.
    """
    established = _established()
    ours = _sockets(client)
    client_ports = {local for local, remote, inode in established if remote == port and inode in ours}
    theirs = {inode for local, remote, inode in established if local == port and remote in client_ports}
    return +Counter({pid: len(theirs & _sockets(pid)) for pid in servers})  # without those that have none


def _established() -> list[tuple[int, int, str]]:
    """Every TCP connection of IPv4: the ports of this end and of the other, and the inode of this end's socket."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return [
        (_port(local), _port(remote), row[9]) for row in rows if row[3] == ESTABLISHED for local, remote in [row[1:3]]
    ]


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def _sockets(pid: int) -> set[str]:
    """The inodes of the sockets that a process has open."""
    found: set[str] = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                kind, _, number = str(descriptor.readlink()).partition(":")
            except FileNotFoundError:  # closed meanwhile
                continue
            if kind == "socket":
                found.add(number.strip("[]"))
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        pass
    return found
