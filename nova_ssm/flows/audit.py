#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""Repairing what nobody looks after: a flow for each finding.

A finding of a request that was lost has two: one that makes sure, and one
that stands for the request, with the id that the request's own would have.
"""

import functools

from taskflow import flow as taskflow_flow
from taskflow.patterns import linear_flow

from nova_ssm.audit import certainty
from nova_ssm.engine import registry
from nova_ssm.tasks import audit_allocations
from nova_ssm.tasks import audit_belongings
from nova_ssm.tasks import audit_builds
from nova_ssm.tasks import audit_events
from nova_ssm.tasks import audit_failures
from nova_ssm.tasks import audit_moves
from nova_ssm.tasks import audit_records
from nova_ssm.tasks import audit_steps
from nova_ssm.tasks import types


def repair_lost_build(manager: types.Manager, inquiry: certainty.Inquiry
                      ) -> taskflow_flow.Flow:
    """What is done for servers that nobody builds, all of one request.

    1. see that no conductor has the request, and that nobody has begun it
    2. begin it, in the place of who has lost it, with end_lost_build
    """
    return linear_flow.Flow('repair_lost_build').add(
        audit_steps.MakeSure(manager, inquiry),
        audit_steps.TakeRequest(manager, 'end_lost_build'))


def end_lost_build(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done in the place of building the servers of a lost request.

    1. put them into ERROR with a fault, free what they hold
    """
    return linear_flow.Flow('end_lost_build').add(
        audit_builds.EndLostBuild(manager))


def repair_lost_move(manager: types.Manager, inquiry: certainty.Inquiry
                     ) -> taskflow_flow.Flow:
    """What is done for a server whose move never began.

    1. see that no conductor has the request, and that nobody has begun it
    2. begin it, in the place of who has lost it, with end_lost_move
    """
    return linear_flow.Flow('repair_lost_move').add(
        audit_steps.MakeSure(manager, inquiry),
        audit_steps.TakeRequest(manager, 'end_lost_move'))


def end_lost_move(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done in the place of a move whose request was lost.

    1. leave the server as it was before, its action with an error
    """
    return linear_flow.Flow('end_lost_move').add(
        audit_moves.EndLostMove(manager))


def repair_stuck_move(manager: types.Manager, inquiry: certainty.Inquiry
                      ) -> taskflow_flow.Flow:
    """What is done for a server whose move was begun, and not gone on with.

    1. see that no conductor has a request for it, and have the computes
       answer behind all that they were told
    2. give it back what it held, end the migration, leave it as it was
    """
    return linear_flow.Flow('repair_stuck_move').add(
        audit_steps.MakeSureOnce(manager, inquiry),
        audit_moves.GiveUpMove(manager))


def repair_stuck_build(manager: types.Manager, inquiry: certainty.Inquiry
                       ) -> taskflow_flow.Flow:
    """What is done for a server that waits for a host in vain.

    1. see that no conductor has a request for it
    2. put it into ERROR with a fault, free what it holds
    """
    return linear_flow.Flow('repair_stuck_build').add(
        audit_steps.MakeSure(manager, inquiry),
        audit_builds.FailStuckBuild(manager))


def repair_stuck_live_migration(manager: types.Manager,
                                inquiry: certainty.Inquiry
                                ) -> taskflow_flow.Flow:
    """What is done for a server whose live migration a compute has let go.

    1. see that no conductor has a request for it, and have the source answer
       behind all that it was told
    2. have the computes say that none is at it; give it back what it held,
       end the migration, leave it as it was
    """
    return linear_flow.Flow('repair_stuck_live_migration').add(
        audit_steps.MakeSureOnce(manager, inquiry),
        audit_moves.EndLiveMigration(manager))


def repair_stuck_resize(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for a server whose resize its destination leaves alone.

    1. see whether that is still so, when the destination has answered behind
       all that it was told
    2. put it into ERROR with a fault, end the migration
    """
    return linear_flow.Flow('repair_stuck_resize').add(
        audit_steps.LookAgain(manager),
        audit_moves.FailResize(manager))


def repair_untold_failure(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for a server that has failed, and has no fault.

    1. see whether that is still so
    2. give it a fault, end its action with an error
    """
    return linear_flow.Flow('repair_untold_failure').add(
        audit_steps.LookAgain(manager),
        audit_failures.TellFailure(manager))


def repair_endless_event(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for a server whose actions do not end.

    1. see whether that is still so
    2. end what is open of them
    """
    return linear_flow.Flow('repair_endless_event').add(
        audit_steps.LookAgain(manager),
        audit_events.EndEvents(manager))


def repair_orphan_allocation(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for allocations whose consumer is gone.

    1. see whether they are still there, and nobody has come to need them
    2. put down what they are
    3. remove them, or give them back to the server that needs them
    4. see that nobody has come to need them
    """
    return linear_flow.Flow('repair_orphan_allocation').add(
        audit_steps.LookAgain(manager),
        audit_allocations.KeepAllocations(manager),
        audit_allocations.RemoveOrphan(manager),
        audit_allocations.CheckOrphan(manager))


def repair_misplaced_allocation(manager: types.Manager
                                ) -> taskflow_flow.Flow:
    """What is done for a server that holds something where it is not.

    1. see whether that is still so
    2. put down what it holds
    3. remove what it holds where it is not
    """
    return linear_flow.Flow('repair_misplaced_allocation').add(
        audit_steps.LookAgain(manager),
        audit_allocations.KeepAllocations(manager),
        audit_allocations.RemoveMisplaced(manager))


def repair_orphan_mapping(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for an instance mapping without an instance.

    1. see whether that is still so
    2. remove it, or mark it as that of a deleted server
    """
    return linear_flow.Flow('repair_orphan_mapping').add(
        audit_steps.LookAgain(manager),
        audit_records.EndMapping(manager))


def repair_endless_migration(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for a migration record that nobody ends.

    1. see whether that is still so
    2. free what it holds, or give it back to the server; end it
    """
    return linear_flow.Flow('repair_endless_migration').add(
        audit_steps.LookAgain(manager),
        audit_records.EndMigration(manager))


def repair_stale_binding(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for ports that are bound where their server is not.

    1. see whether that is still so
    2. put down what the bindings are
    3. remove them
    4. see that nobody moves the server
    """
    return linear_flow.Flow('repair_stale_binding').add(
        audit_steps.LookAgain(manager),
        audit_belongings.Keep(manager),
        audit_belongings.RemoveBindings(manager),
        audit_belongings.CheckMoving(manager))


def repair_misplaced_binding(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for ports that are active where their server is not.

    1. see whether that is still so
    2. put down what the bindings are
    3. let the ports be active on the host of the server
    4. remove the bindings
    5. see that nobody moves the server
    """
    return linear_flow.Flow('repair_misplaced_binding').add(
        audit_steps.LookAgain(manager),
        audit_belongings.Keep(manager),
        audit_belongings.MoveBindings(manager),
        audit_belongings.RemoveBindings(manager),
        audit_belongings.CheckMoving(manager))


def repair_orphan_port(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for a port whose server is no more.

    1. see whether that is still so
    2. put down what it is bound to
    3. unbind it
    4. see that the server has not come to life
    """
    return linear_flow.Flow('repair_orphan_port').add(
        audit_steps.LookAgain(manager),
        audit_belongings.Keep(manager),
        audit_belongings.UnbindPort(manager),
        audit_belongings.CheckGone(manager))


def repair_orphan_accelerator(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for an accelerator request without a server.

    1. see whether that is still so
    2. put down what it is
    3. delete it
    """
    return linear_flow.Flow('repair_orphan_accelerator').add(
        audit_steps.LookAgain(manager),
        audit_belongings.Keep(manager),
        audit_belongings.DeleteAccelerator(manager))


def repair_orphan_attachment(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for the attachment of a volume without a server.

    1. see whether that is still so
    2. put down what it is
    3. delete it
    4. see that the server has not come to life
    """
    return linear_flow.Flow('repair_orphan_attachment').add(
        audit_steps.LookAgain(manager),
        audit_belongings.Keep(manager),
        audit_belongings.DeleteAttachment(manager),
        audit_belongings.CheckGone(manager))


def flow_types(manager: types.Manager, inquiry: certainty.Inquiry
               ) -> list[registry.FlowType]:
    """The flows of all repairs, for the registry."""
    asking = (repair_lost_build, repair_lost_move, repair_stuck_build,
              repair_stuck_move, repair_stuck_live_migration)
    others = (end_lost_build, end_lost_move, repair_stuck_resize,
              repair_untold_failure, repair_endless_event,
              repair_orphan_allocation,
              repair_misplaced_allocation, repair_orphan_mapping,
              repair_endless_migration, repair_stale_binding,
              repair_misplaced_binding,
              repair_orphan_port, repair_orphan_accelerator,
              repair_orphan_attachment)
    return [registry.FlowType(
        make.__name__, '1.0', functools.partial(make, manager, inquiry),
        instead=_INSTEAD) for make in asking] + [
            registry.FlowType(
                make.__name__, '1.0', functools.partial(make, manager),
                instead=_INSTEAD) for make in others]


_INSTEAD = '"nova-ssm audit" looks again at what is left'
