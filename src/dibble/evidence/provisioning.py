"""What VMware and Azure hand a machine on a disc, an OVF environment, and what Azure's two services answer beside it.

Formats: DMTF DSP8027 (OVF environment) with the properties that cloud-init's OVF source reads; Azure's provisioning
file as in the documentation of its Linux agent, its instance metadata service, and the wire server's goal state, which
the agent asks for and answers with "ready".
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from dibble.evidence.hardware import GUEST_MAC

if TYPE_CHECKING:
    from dibble.evidence.metadata import Settings

_USER = "azureuser"
"""Azure has a name for every machine's user; this is the one that its portal proposes."""

_OVF = """\
<?xml version="1.0" encoding="UTF-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1">
  <PropertySection>
{properties}
  </PropertySection>
</Environment>
"""
_PROVISIONING = """\
<?xml version="1.0" encoding="UTF-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure"\
 xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
  <wa:ProvisioningSection>
    <wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure">
      <ConfigurationSetType>LinuxProvisioningConfiguration</ConfigurationSetType>
      <HostName>{hostname}</HostName>
      <UserName>{user}</UserName>
      <DisableSshPasswordAuthentication>true</DisableSshPasswordAuthentication>
      <CustomData>{data}</CustomData>
    </LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
  <wa:PlatformSettingsSection>
    <wa:Version>1.0</wa:Version>
    <PlatformSettings xmlns="http://schemas.microsoft.com/windowsazure">
      <ProvisionGuestAgent>false</ProvisionGuestAgent>
    </PlatformSettings>
  </wa:PlatformSettingsSection>
</Environment>
"""
_GOAL_STATE = """\
<?xml version="1.0" encoding="utf-8"?>
<GoalState>
  <Version>2012-11-30</Version>
  <Incarnation>1</Incarnation>
  <Machine><ExpectedState>Started</ExpectedState></Machine>
  <Container>
    <ContainerId>dibble</ContainerId>
    <RoleInstanceList>
      <RoleInstance><InstanceId>dibble-0</InstanceId><State>Started</State><Configuration/></RoleInstance>
    </RoleInstanceList>
  </Container>
</GoalState>
"""


def ovf_environment(settings: Settings, instance_id: str) -> dict[str, bytes]:
    """The disc that vSphere makes of an appliance's properties (transport "iso")."""
    values = {
        "instance-id": instance_id,
        "hostname": settings.hostname,
        "public-keys": "\n".join(settings.keys),
        "user-data": base64.b64encode(settings.user_data).decode(),
    }
    lines = [
        f"    <Property oe:key={quoteattr(name)} oe:value={quoteattr(text)}/>" for name, text in values.items() if text
    ]
    return {"ovf-env.xml": _OVF.format(properties="\n".join(lines)).encode()}


def azure_disc(settings: Settings) -> dict[str, bytes]:
    """The DVD that is in the drive of a machine of Azure's when it starts for the first time."""
    data = base64.b64encode(settings.user_data).decode()
    words = {"hostname": escape(settings.hostname), "user": escape(settings.user or _USER), "data": data}
    return {"ovf-env.xml": _PROVISIONING.format(**words).encode()}


def azure_services(settings: Settings) -> dict[str, bytes]:
    """What the metadata service and the wire server answer, by path; `POST PATH` is what may be said to them."""
    compute = {
        "name": settings.hostname,
        "azEnvironment": "AzurePublicCloud",
        "location": "testeast",
        "osProfile": {"computerName": settings.hostname, "disablePasswordAuthentication": "true"},
        "publicKeys": [{"keyData": key, "path": ""} for key in settings.keys],
        "vmId": "00000000-0000-4000-8000-00000d1bb1e0",
        "vmSize": "Standard_B1s",
    }
    address = {"privateIpAddress": "168.63.0.15", "publicIpAddress": ""}
    card = {
        "ipv4": {"ipAddress": [address], "subnet": [{"address": "168.0.0.0", "prefix": "7"}]},
        "ipv6": {"ipAddress": []},
        "macAddress": GUEST_MAC.replace(":", ""),
    }
    return {
        "/metadata/instance": json.dumps({"compute": compute, "network": {"interface": [card]}}).encode(),
        "/machine": _GOAL_STATE.encode(),
        "POST /machine": b"",
    }
