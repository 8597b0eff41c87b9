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

"""The states of a flow, and of its tasks, as the journal knows them.

::

    PENDING --> RUNNING --> SUCCESS
                   |------> REVERTED    every effect was undone
                   |------> FAILURE     undoing failed too: a case for people
                   `------> KILLED      given up by people, nothing undone

A flow without a living owner keeps its state; whether it is owned is said by
its owner alone. The last four are final; people may have a flow in FAILURE,
or one that was reverted, tried again.
"""

PENDING = 'PENDING'
RUNNING = 'RUNNING'
SUCCESS = 'SUCCESS'
REVERTED = 'REVERTED'
FAILURE = 'FAILURE'
KILLED = 'KILLED'

FINAL = frozenset((SUCCESS, REVERTED, FAILURE, KILLED))
#: Those that are looked after by people.
FOR_PEOPLE = frozenset((FAILURE, KILLED))

# Kinds of journal rows.
START = 'start'      # what the flow was given
CLAIM = 'claim'      # another worker took the flow: fences the one before
ATOM = 'atom'        # a task started (only some), ended, failed or reverted
END = 'end'          # the flow is over
MORE = 'more'        # a further piece of what the row before it holds

KINDS = frozenset((START, CLAIM, ATOM, END, MORE))
