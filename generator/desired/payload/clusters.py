"""Makes V-Nets from Server Clusters and their templates, and checks that the two fit together."""

from collections.abc import Iterator
from typing import NamedTuple

from generator.desired.payload.decode import Sections
from generator.desired.payload.document import Vnet, VnetGateway
from generator.desired.payload.fleet import (
    L2VPN,
    ClusterVnet,
    ServerCluster,
    ServerClusterTemplate,
    TemplateVnet,
)
from generator.desired.payload.near import Names
from generator.desired.payload.values import TemplateGateway
from generator.errors import Problem, Problems, printable

_LONGEST = 255


class Segment(NamedTuple):
    """A V-Net that a Server Cluster has by its template."""

    place: str
    vnet: Vnet
    nics: tuple[str, ...]


class Cluster(NamedTuple):
    """A Server Cluster with its V-Nets."""

    place: str
    document: ServerCluster
    segments: list[Segment]


class _Template:
    """A template, prepared once for all of its Server Clusters."""

    def __init__(self, template: ServerClusterTemplate) -> None:
        self.name = printable(template.name)
        self.postfixes = {vnet.postfix for vnet in template.vnets}
        self.names = Names(self.postfixes)
        self.vnets = [
            (vnet, tuple(dict.fromkeys(vnet.server_nics)))
            for vnet in template.vnets
            if vnet.type == L2VPN
        ]


def clusters(document: Sections, problems: Problems) -> list[Cluster]:
    """Return the Server Clusters of a Fleet; what is wrong goes to `problems`."""
    templates = document.get("server_cluster_templates")
    sound: dict[str, _Template] = {}
    places: dict[str, str] = {}
    for index, template in enumerate(templates or []):
        place = f"serverClusterTemplates[{index}]"
        if template and not _is_repeated(place, template.name, places, problems):
            problems.extend(_check_template(place, template))
            sound[template.name] = _Template(template)
    # A reference to an ill-formed template is not a second problem.
    complete = templates is not None and None not in templates
    known = Names(sound)
    resolved = []
    places = {}
    for index, cluster in enumerate(document.get("server_clusters") or []):
        place = f"serverClusters[{index}]"
        if cluster is None or _is_repeated(place, cluster.name, places, problems):
            continue
        if cluster.template in sound:
            used = sound[cluster.template]
            problems.extend(_check_postfixes(place, cluster, used))
            segments = list(_segments(place, cluster, used, problems))
            resolved.append(Cluster(place, cluster, segments))
        elif complete:
            rule = "is no template of this payload"
            hint = known.hint(cluster.template)
            problems.append(Problem(f"{place}.template", printable(cluster.template), rule, hint))
    return resolved


def _is_repeated(place: str, name: str, places: dict[str, str], problems: Problems) -> bool:
    first = places.setdefault(name, place)
    if first != place:
        problems.append(Problem(f"{place}.name", printable(name), f"is already {first}.name"))
    return first != place


def _check_template(place: str, template: ServerClusterTemplate) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for number, vnet in enumerate(template.vnets):
        where = f"{place}.vnets[{number}]"
        if vnet.postfix in first:
            rule = f"is already vnets[{first[vnet.postfix]}].postfix of this template"
            yield Problem(f"{where}.postfix", printable(vnet.postfix), rule)
        first.setdefault(vnet.postfix, number)
        if vnet.type == L2VPN and not vnet.server_nics:
            yield Problem(f"{where}.serverNics", "", f"is required for type {L2VPN}")


def _check_postfixes(place: str, cluster: ServerCluster, template: _Template) -> Iterator[Problem]:
    """Refuse the settings of V-Nets that the Server Cluster's template does not have."""
    for postfix in cluster.vnets:
        if postfix not in template.postfixes:
            rule = f"is no postfix of template {template.name}"
            hint = template.names.hint(postfix)
            yield Problem(f"{place}.vnets", printable(postfix), rule, hint)


def _segments(
    place: str, cluster: ServerCluster, template: _Template, problems: Problems
) -> Iterator[Segment]:
    """Yield the V-Nets of a Server Cluster that it describes completely."""
    for vnet, nics in template.vnets:
        where = f"{place}.vnets.{printable(vnet.postfix)}"
        own = cluster.vnets.get(vnet.postfix, ClusterVnet())
        before = len(problems)
        name = f"{cluster.name}-{vnet.postfix}"
        if len(name) > _LONGEST:
            rule = f"is longer than {_LONGEST} characters"
            problems.append(Problem(where, printable(name), rule))
        if not own.vxlan_id:
            rule = f"is required: template {template.name} has this V-Net"
            problems.append(Problem(f"{where}.vxlanID", "", rule))
        gateways = list(_gateways(where, own, vnet, problems))
        if own.vxlan_id and len(problems) == before:
            complete = Vnet(
                name=name,
                vxlan_id=own.vxlan_id,
                vpc=cluster.vpc,
                mtu=own.mtu,
                gateways=gateways,
                mac_address=own.mac_address,
            )
            yield Segment(where, complete, nics)


def _gateways(
    place: str, own: ClusterVnet, vnet: TemplateVnet, problems: Problems
) -> Iterator[VnetGateway]:
    """Yield the gateways of the template, and of the cluster where the template says `specify`."""
    for family, gateway in ((4, vnet.ipv4_gateway), (6, vnet.ipv6_gateway)):
        specified = [each for each in own.gateways if each.prefix.version == family]
        if isinstance(gateway, TemplateGateway) and gateway.prefix:
            yield VnetGateway(prefix=gateway.prefix)
        open_ = isinstance(gateway, TemplateGateway) and gateway.prefix is None
        if open_ and not specified:
            rule = f"is required with an IPv{family} gateway: the template says `specify`"
            problems.append(Problem(f"{place}.gateways", "", rule))
        elif specified and not open_:
            rule = f"is an IPv{family} gateway, for which the template does not say `specify`"
            problems.append(Problem(f"{place}.gateways", str(specified[0].prefix), rule))
        yield from specified if open_ else ()
