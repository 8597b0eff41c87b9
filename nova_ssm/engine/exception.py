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

"""What can go wrong in the engine, in words for the one who has to act."""


class EngineError(Exception):
    """Base of the errors that the engine raises on purpose."""


class DatabaseUnusable(EngineError):
    """The journal's database cannot be used as it is configured."""


class SchemaMissing(DatabaseUnusable):
    """The tables are not there, or they are older than this code."""


class UnknownFlow(EngineError):
    """No flow of that name and version is registered here."""


class BadExtension(EngineError):
    """A flow cannot be changed as an operator says."""


class FlowNotFound(EngineError):
    """No flow with that uuid is in the database."""


class AmbiguousFlow(EngineError):
    """Several flows have uuids that begin like that."""


class NotTransferable(EngineError):
    """A flow cannot be moved to another worker, or has not moved."""


class NotSteerable(EngineError):
    """A flow cannot be had do what is wanted of it."""


class FlowCancelled(EngineError):
    """Somebody wanted what the flow had done undone."""


class FlowKilled(EngineError):
    """Somebody has given the flow up; nothing of it was undone."""


class DamagedJournal(EngineError):
    """A row of the journal cannot be read back."""


class Unreadable(DamagedJournal):
    """A row of the journal holds what this release does not know.

    Another one wrote it, which can go on with the flow.
    """


class NotSerializable(EngineError):
    """A task took or gave a value that the journal cannot hold."""


class ResultTooLarge(NotSerializable):
    """A task gave more than the tests of its flow allow for one row."""


class SecretUnavailable(EngineError):
    """A secret that the flow needs cannot be read back from the journal."""


class RemoteTraceback(Exception):
    """The traceback that an exception had in the process that raised it.

    It is the ``__cause__`` of an exception that came out of the journal, so
    that a log still shows where it was raised.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return '\n"""\n%s"""' % self.text


class FlowLost(BaseException):
    """This process does not own the flow any more, another one goes on.

    Not an :class:`Exception`: it must not be taken for the failure of a
    task, which would revert what the new owner is building on. It ends the
    run where it stands, without a word in the journal.
    """


class FlowSuspended(FlowLost):
    """This process is being stopped, and begins no further step."""


class FlowOrdered(FlowSuspended):
    """There is an order for the flow: it is read back, and obeys."""


class JournalBroken(BaseException):
    """The journal refuses a row, and to wait for it would not help.

    Not an :class:`Exception`: a flow must neither be reverted nor be called
    finished because its journal cannot be written. It ends the run where it
    stands; whoever can write the journal goes on.
    """


class BoardUnusable(EngineError):
    """The job board cannot be used as it is configured, or is away."""
