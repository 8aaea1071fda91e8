"""Commands that are killed, interrupted or refused at every change they make to a file."""

from collections.abc import Sequence

from _faulty import KILL, REFUSALS, SIGNALS, Fault
from _flows import FAMILIES, FLOWS, Flow, Reference, Stage
from _rows import Counted, Share, evenly

_references: dict[str, Reference] = {}


def reference(stage: Stage, flow: Flow) -> Reference:
    """Return what a flow leaves undisturbed; it is run once for all rows."""
    if flow.name not in _references:
        _references[flow.name] = stage.reference(flow)
    return _references[flow.name]


def enumerated(
    stage: Stage, share: Share, flows: Sequence[Flow], faults: Sequence[Fault]
) -> Counted:
    """Disturb flows at as many of their calls as there is time for."""
    found = Counted(possible=0)
    each = share.seconds / (len(flows) * len(faults))
    for flow in flows:
        undisturbed = reference(stage, flow)
        for fault in faults:
            calls = undisturbed.count(fault)
            found.possible = (found.possible or 0) + calls
            own = Share(each)
            for place in own.while_left(evenly(calls)):
                outcome = stage.disturbed(flow, fault.at(place + 1), undisturbed)
                own.used += outcome.seconds
                what = f"{flow.name}, {fault.name} at call {place + 1} of {calls}"
                found.add(what, outcome.wrong)
            share.used += own.used
    return found


def kills(stage: Stage, share: Share) -> Counted:
    """Kill each command; what is left is completed to the same result."""
    return enumerated(stage, share, FLOWS, (KILL,))


def kills_of_families(stage: Stage, share: Share) -> Counted:
    """Kill trainings and scoring of the other families."""
    return enumerated(stage, share, FAMILIES, (KILL,))


def signals(stage: Stage, share: Share) -> Counted:
    """Send SIGTERM and SIGINT."""
    return enumerated(stage, share, FLOWS, SIGNALS)


def refusals(stage: Stage, share: Share) -> Counted:
    """Let the system refuse: no space, read-only, a broken disk, too many files."""
    return enumerated(stage, share, FLOWS, REFUSALS)
