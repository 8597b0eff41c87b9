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

"""Whether a conductor can be started, or upgraded, here: one look at each.

For ``nova-ssm status upgrade check``. It reads only, and may be run while
conductors run, of this release or of another.
"""

from collections.abc import Callable
import importlib
from typing import Any

from oslo_config import cfg
from oslo_upgradecheck import upgradecheck

from nova_ssm import conf as ssm_conf
from nova_ssm.engine import boards
from nova_ssm.engine import database
from nova_ssm.engine import exception as engine_exc
from nova_ssm.engine import loading
from nova_ssm.engine import queries
from nova_ssm.engine import registry
from nova_ssm.engine import serialization
from nova_ssm import exception
from nova_ssm import jobboards
from nova_ssm import patching

Code = upgradecheck.Code

#: How many unfinished flows are looked at, and how many of them are named.
_LOOKED_AT, _NAMED = 1000, 5


def _module(name: str) -> Any:
    """A module that imports Nova, which may be what is the matter."""
    return importlib.import_module('nova_ssm.' + name)


def _careful(check: Callable[[Any], upgradecheck.Result]
             ) -> Callable[[Any], upgradecheck.Result]:
    """What a check cannot do fails that check, and not the others."""
    def careful(self: Any) -> upgradecheck.Result:
        try:
            return check(self)
        except (engine_exc.EngineError, exception.ConfigurationError,
                patching.PatchError, ValueError) as exc:
            return upgradecheck.Result(Code.FAILURE, str(exc))
        except Exception as exc:  # noqa: BLE001 - whatever Nova may raise
            return upgradecheck.Result(Code.FAILURE, '%s: %s' % (
                type(exc).__name__, exc))
    return careful


class Checks(upgradecheck.UpgradeCommands):
    """All checks, in the order in which things are set up.

    :param conf: of Nova, with section [ssm]
    """

    display_title = 'nova-ssm Upgrade Check Results'

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__()
        self._conf = conf

    def _database(self) -> database.Database:
        """:raises EngineError: if the tables cannot be used"""
        db = database.Database(ssm_conf.journal_url(self._conf) or '')
        db.check()
        return db

    def _serializer(self) -> serialization.Serializer:
        return _module('objects').serializer(
            serialization.Vault(self._conf.ssm.encryption_keys))

    # -- the checks --------------------------------------------------------

    @_careful
    def nova(self) -> upgradecheck.Result:
        """Whether there is a patch for the Nova that is installed."""
        nova = patching.find(patching.NOVA)
        if patching.inspect(nova).state is patching.State.UNSUPPORTED:
            return upgradecheck.Result(Code.FAILURE, (
                'there is no patch for nova %s in %s; supported are: %s'
                % (nova.version, nova.root, nova.project.supported)))
        return upgradecheck.Result(Code.SUCCESS, 'nova %s (%s)' % (
            nova.version, nova.release))

    @_careful
    def patch(self) -> upgradecheck.Result:
        """Whether it is patched, or need not be."""
        state = patching.inspect(patching.find(patching.NOVA)).state
        if state is patching.State.APPLIED:
            return upgradecheck.Result(Code.SUCCESS)
        if state is patching.State.NOT_APPLIED:
            return upgradecheck.Result(Code.WARNING, (
                'nova is not patched: run "nova-ssm patch apply", or start '
                '"nova-ssm-conductor" in place of "nova-conductor"'))
        return upgradecheck.Result(Code.FAILURE, (
            'nova is in the state "%s": see "nova-ssm patch status"'
            % state.value))

    @_careful
    def messaging(self) -> upgradecheck.Result:
        """Whether oslo.messaging is patched: nothing needs it, but calls."""
        try:
            state = patching.inspect(
                patching.find(patching.MESSAGING)).state.value
        except patching.PatchError as exc:
            state = str(exc)
        if state == patching.State.APPLIED.value:
            return upgradecheck.Result(Code.SUCCESS)
        return upgradecheck.Result(Code.WARNING, (
            'the patch for oslo.messaging is in the state "%s": run "nova-ssm '
            'patch apply"; without it %s' % (state, patching.LOSSES)))

    @_careful
    def schema(self) -> upgradecheck.Result:
        """Whether the tables are there, and those of this release."""
        db = self._database()
        found, wanted = db.version(), database.head()
        if found != wanted:
            return upgradecheck.Result(Code.WARNING, (
                'the tables are at revision %s, which is newer than this '
                'release, which needs %s: it works with them'
                % (found, wanted)))
        return upgradecheck.Result(Code.SUCCESS, 'revision %s' % found)

    @_careful
    def keys(self) -> upgradecheck.Result:
        """Whether secrets can be journaled, and how."""
        keys = self._conf.ssm.encryption_keys
        if not keys:
            return upgradecheck.Result(Code.WARNING, (
                '[ssm] encryption_keys is empty: a flow that is interrupted '
                'and needs a secret to go on will be reverted; "nova-ssm '
                'key new" makes a key'))
        serialization.Vault(keys)
        return upgradecheck.Result(
            Code.SUCCESS, '%d, the first one encrypts' % len(keys))

    @_careful
    def workflows(self) -> upgradecheck.Result:
        """Whether what shall be run is installed, and can be loaded."""
        names = self._conf.ssm.workflows
        catalog = _module('catalog').installed()
        known = {plugin.name for plugin in catalog.plugins}
        bad = ['%s (%s)' % (name, catalog.broken.get(name, 'not installed'))
               for name in names if name not in known]
        if bad:
            return upgradecheck.Result(Code.FAILURE, (
                '[ssm] workflows names %s; installed are: %s' % (
                    ', '.join(bad), ', '.join(sorted(known)) or 'none')))
        if not names:
            return upgradecheck.Result(Code.WARNING, (
                '[ssm] workflows is empty: all is left to Nova'))
        return upgradecheck.Result(Code.SUCCESS, ', '.join(names))

    @_careful
    def board(self) -> upgradecheck.Result:
        """Whether the job board answers."""
        make = jobboards.factory(self._conf)
        board: boards.Board = make(
            database.Database(ssm_conf.journal_url(self._conf) or ''),
            serialization.Serializer())
        board.probe()
        return upgradecheck.Result(Code.SUCCESS, self._conf.ssm.jobboard)

    @_careful
    def flows(self) -> upgradecheck.Result:
        """Whether this release can go on with all that is not over."""
        db, serializer, known = (
            self._database(), self._serializer(), self._known())
        found = queries.flows(db, unfinished=True, limit=_LOOKED_AT)
        bad = {}
        for info in found:
            reason = (known.why_not(info.name, info.version) or
                      loading.unreadable(db, serializer, info.uuid))
            if reason:
                bad[info.uuid] = reason
        if not bad:
            return upgradecheck.Result(
                Code.SUCCESS, '%d under way' % len(found))
        named = '; '.join('flow %s: %s' % one
                          for one in list(bad.items())[:_NAMED])
        return upgradecheck.Result(Code.WARNING, (
            '%d of %d flows that are not over cannot be gone on with here '
            '(let an older conductor finish them, or see "nova-ssm flow '
            'show"): %s' % (len(bad), len(found), named)))

    def _known(self) -> registry.Registry:
        known = registry.Registry()
        for plugin in _module('catalog').installed().plugins:
            for flow_type in plugin.flow_types:
                known.add(flow_type)
        return known

    _upgrade_checks = (
        ('Nova release', nova), ('Patch', patch),
        ('Patch for oslo.messaging', messaging),
        ('Journal schema', schema), ('Encryption keys', keys),
        ('Workflows', workflows), ('Job board', board),
        ('Unfinished flows', flows))

    def results(self) -> list[tuple[str, upgradecheck.Result]]:
        """What each check says."""
        return [(name, check(self)) for name, check in self._upgrade_checks]
