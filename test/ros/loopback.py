"""What all live tests share: DDS on the loopback interface alone, in a domain of this test run's own."""

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

LOOPBACK = (
    '<CycloneDDS><Domain><General><Interfaces><NetworkInterface name="lo"/></Interfaces>'
    "<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>"
    '<MaxAutoParticipantIndex>32</MaxAutoParticipantIndex><Peers><Peer Address="localhost"/></Peers></Discovery>'
    "</Domain></CycloneDDS>"
)

NUM_FRAMES = 16  # of the bags of the live tests
_NUM_DOMAINS = 97  # below the ephemeral ports
_HELD: list[IO[str]] = []  # locks, for as long as this process lives


def stay_on_loopback(domain_id: int) -> None:
    """Set what this process and those it starts read; before any DDS participant is made."""
    os.environ["CYCLONEDDS_URI"] = LOOPBACK
    os.environ["ROS_DOMAIN_ID"] = str(domain_id)


def own_domain() -> int:
    """A domain that no other test run on this machine has, or two nodes of one name would hear each other's cameras."""
    for number in range(_NUM_DOMAINS):
        domain_id = 1 + (os.getpid() + number) % _NUM_DOMAINS
        try:
            file = (Path(tempfile.gettempdir()) / f"test_of_ros_domain_{domain_id}.lock").open("a")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        _HELD.append(file)
        return domain_id
    raise RuntimeError("every DDS domain is held by another test run")
