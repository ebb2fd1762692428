"""What all live tests share: DDS on the loopback interface alone, in a domain of this test run's own."""

import os

LOOPBACK = (
    '<CycloneDDS><Domain><General><Interfaces><NetworkInterface name="lo"/></Interfaces>'
    "<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>"
    '<MaxAutoParticipantIndex>32</MaxAutoParticipantIndex><Peers><Peer Address="localhost"/></Peers></Discovery>'
    "</Domain></CycloneDDS>"
)


NUM_FRAMES = 16  # of the bags of the live tests


def stay_on_loopback(domain_id: int) -> None:
    """Set what this process and those it starts read; before any DDS participant is made."""
    os.environ["CYCLONEDDS_URI"] = LOOPBACK
    os.environ["ROS_DOMAIN_ID"] = str(domain_id)
