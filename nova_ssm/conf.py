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

"""The options of section [ssm] in nova.conf."""

from oslo_config import cfg
from oslo_db import options as db_options

ssm_group = cfg.OptGroup(
    'ssm', title='Structured state management',
    help='Runs operations of nova-conductor as task graphs that another '
         'conductor can go on with. Needs ``[conductor] '
         'compute_task_manager = nova_ssm``.')

_board_opts = [
    cfg.StrOpt(
        'jobboard', default='sql',
        choices=[
            ('sql', 'in the database of the journal: no other service'),
            ('zookeeper', 'TaskFlow\'s board in ZooKeeper'),
            ('etcd', 'TaskFlow\'s board in etcd'),
            ('redis', 'TaskFlow\'s board in Redis')],
        help='Where the conductors claim flows: the same on every conductor. '
             'All but ``sql`` need their client library: ``pip install '
             '"nova-ssm[etcd]"``, or ``[redis]`` or ``[zookeeper]``.'),
    cfg.ListOpt(
        'jobboard_hosts', default=[],
        help='Where the servers of the job board are, host:port of each. '
             'Default: this machine, and the usual port. Of several etcds, '
             'or Redises without a Sentinel, the next one is asked when one '
             'fails.'),
    cfg.StrOpt(
        'jobboard_path', default='/nova_ssm', regex='^/[^/]',
        help='Below which name the job board keeps what it knows. Clouds '
             'that share its servers need different ones.'),
    cfg.StrOpt(
        'jobboard_user',
        help='The user of the job board\'s servers, if they ask for one. In '
             'ZooKeeper the nodes are readable to it only then.'),
    cfg.StrOpt(
        'jobboard_password', secret=True,
        help='The password of that user. For Redis it does without a user.'),
    cfg.BoolOpt(
        'jobboard_tls', default=False,
        help='Whether to talk TLS with the job board\'s servers.'),
    cfg.StrOpt(
        'jobboard_ca_file',
        help='The certificates of those who sign the servers\'.'),
    cfg.StrOpt(
        'jobboard_cert_file',
        help='The certificate that we show the servers.'),
    cfg.StrOpt(
        'jobboard_key_file',
        help='And its key.'),
    cfg.StrOpt(
        'jobboard_sentinel',
        help='What the Redis is called by its Sentinels; they are named in '
             '``jobboard_hosts`` then.'),
]

_telemetry_opts = [
    cfg.BoolOpt(
        'task_events', default=True,
        help='Whether each task of a flow is shown as an event of the '
             'server\'s action, with ``ssm_`` before its name: ``openstack '
             'server event show`` tells users how far an operation is, and '
             'which task has failed. Nova\'s own events stay as they are.'),
    cfg.FloatOpt(
        'task_events_interval', default=1.0, min=0,
        help='Seconds for which a worker collects such events, of all its '
             'flows, before it writes them into the cells: one transaction '
             'in each cell. No flow waits for it. With 0 a flow writes its '
             'own, when it ends.'),
    cfg.BoolOpt(
        'flow_notifications', default=False,
        help='Whether notifications ``ssm.flow.start``, ``.resume``, '
             '``.end`` and ``.error`` are sent beside Nova\'s versioned '
             'ones, by the same notifier: nothing is sent where ``[oslo_'
             'messaging_notifications] driver`` or ``[notifications] '
             'notification_format`` keep Nova from it.'),
    cfg.PortOpt(
        'metrics_port', default=0,
        help='The first port at which workers answer Prometheus; 0 for no '
             'metrics. Each worker process takes the first one from there '
             'on that is free: have Prometheus ask as many as the host has '
             'workers, twice that for those that are restarted. Needs ``pip '
             'install "nova-ssm[metrics]"``.'),
    cfg.StrOpt(
        'metrics_address', default='127.0.0.1',
        help='The address for that. Metrics name flows, tasks and hosts, no '
             'servers and no users; who can reach the port can read them.'),
]

ssm_opts = [
    cfg.ListOpt(
        'workflows', default=[],
        help='The operations that are run as task graphs: names of entry '
             'points in ``nova_ssm.workflows``. What is not named is left '
             'to Nova itself. nova-conductor does not start with a name '
             'that is not installed.'),
    cfg.MultiStrOpt(
        'extend', default=[],
        help='A change to a flow, may be repeated: ``FLOW: TASK after TASK``, '
             '``FLOW: TASK before TASK`` or ``FLOW: TASK replaces TASK``. The '
             'first task is an entry point in ``nova_ssm.tasks``, which is '
             'added, or a task of the flow, which is moved. ``nova-ssm flow '
             'graph FLOW`` shows what comes of it. A flow is resumed with '
             'the changes that it was begun with: by a conductor that has '
             'the same lines for it. nova-conductor does not start with a '
             'line that it cannot use.'),
    cfg.StrOpt(
        'connection', secret=True,
        help='The database of the journal, as an SQLAlchemy URL. Default: '
             'the conductor\'s own ``[database] connection``. Its tables '
             'are made by ``nova-ssm db sync``.'),
    cfg.ListOpt(
        'encryption_keys', default=[], secret=True,
        help='Fernet keys for the secrets in the journal: the token of the '
             'request, the admin password, injected files. The first one '
             'encrypts, all of them decrypt; the same on every conductor. '
             '``nova-ssm key new`` makes one. Without a key secrets are not '
             'journaled, and a flow that was interrupted and needs them to '
             'go on is reverted. How to change a key: see "nova-ssm key '
             'rotate" and the documentation on security.'),
    cfg.FloatOpt(
        'lease', default=10, min=1,
        help='Seconds of silence after which a conductor worker counts as '
             'dead and others take its flows. A worker that comes back on '
             'the same host does not wait for it, and one that is stopped '
             'in good order lets nobody wait.'),
    cfg.FloatOpt(
        'recovery_interval', default=1, min=0.1,
        help='Seconds between two looks of a worker for flows that nobody '
             'runs.'),
    cfg.IntOpt(
        'concurrency', default=8, min=1,
        help='How many servers of one request are built side by side, and '
             'how many threads a worker has for that beside those that take '
             'requests. They wait for the database and the message bus side '
             'by side; the processor they share. 1 builds them one after '
             'the other, as Nova does.'),
    cfg.IntOpt(
        'recovery_concurrency', default=32, min=1,
        help='How many flows of dead workers one worker goes on with side '
             'by side. One that only waits for a compute does not count.'),
    cfg.IntOpt(
        'keep_finished', default=7 * 86400, min=0,
        help='Seconds for which a flow that is over is kept, for ``nova-ssm '
             'flow list`` to show; 0 for ever. Then the conductors remove '
             'it, a hundred flows at a time. They look back for some minutes '
             'at what has ended (three times ``[DEFAULT] '
             'rpc_response_timeout`` and half a minute): they do not start '
             'with less.'),
    cfg.IntOpt(
        'keep_failed', default=90 * 86400, min=0,
        help='Seconds for which a flow is kept that ended in FAILURE (or '
             'KILLED): something was not undone, a case for people. 0 '
             'for ever.'),
    cfg.FloatOpt(
        'audit_interval', default=15, min=0,
        help='Seconds between two looks for what was lost with a conductor '
             'before its journal knew of it: one of all workers looks, in '
             'turn. What is safe to be repaired is repaired; ``nova-ssm '
             'audit`` shows the rest. 0 looks only when asked. Set it to '
             'the same on every conductor.'),
    *_board_opts,
    *_telemetry_opts,
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Make section [ssm] known to a configuration."""
    conf.register_group(ssm_group)
    conf.register_opts(ssm_opts, group=ssm_group)


def list_opts() -> list[tuple[cfg.OptGroup, list[cfg.Opt]]]:
    """For oslo-config-generator and the documentation."""
    return [(ssm_group, ssm_opts)]


def journal_url(conf: cfg.ConfigOpts) -> str | None:
    """The URL of the journal's database, None if none is configured."""
    if conf.ssm.connection:
        return conf.ssm.connection
    # Nova has registered it; a command of ours may not have.
    try:
        return conf.database.connection
    except (cfg.NoSuchOptError, cfg.NoSuchGroupError):
        conf.register_opts(db_options.database_opts, group='database')
        return conf.database.connection
