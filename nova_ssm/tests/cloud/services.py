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
"""What runs, and how each of it is started."""

import os
import pathlib
import pwd
import shutil

from nova_ssm.tests.cloud import injection_orders
from nova_ssm.tests.cloud import process
from nova_ssm.tests.cloud import settings
from nova_ssm.tests.cloud import unruly

#: In the order of their start.
INFRA = ('mariadb', 'epmd', 'rabbitmq', 'memcached')
APIS = ('keystone', 'placement', 'glance', 'neutron', 'nova-api')
NOVA = (*settings.CONDUCTORS, 'scheduler', *settings.COMPUTES)
ALL = (*INFRA, *APIS, *NOVA)

#: API -> (WSGI module, threads)
_WSGI = {
    'keystone': ('keystone.wsgi.api', 8),
    'placement': ('placement.wsgi.api', 8),
    'glance': ('glance.wsgi.api', 8),
    'neutron': ('neutron.wsgi.api', 8),
    'nova-api': ('nova.wsgi.osapi_compute', 12),
}
#: What a test may let misbehave.
UNRULY = ('placement', 'neutron')


def user() -> str:
    """Return the name of the user that everything runs as: the caller."""
    return pwd.getpwuid(os.geteuid()).pw_name


def environment(where: settings.Settings) -> dict[str, str]:
    """Return the environment of the services: nothing of the caller's."""
    env = {
        'PATH': os.pathsep.join([
            str(where.venv / 'bin'), '/usr/local/sbin', '/usr/local/bin',
            '/usr/sbin', '/usr/bin', '/sbin', '/bin']),
        'HOME': str(where.var / 'home'),
        'LANG': 'C.UTF-8',
        'TZ': 'UTC',
    }
    for name in ('nova', 'placement', 'keystone', 'glance', 'neutron'):
        env[f'OS_{name.upper()}_CONFIG_DIR'] = str(where.etc / name)
    return env


def rabbit_environment(where: settings.Settings) -> dict[str, str]:
    """Return the environment of the broker and of its tools."""
    return environment(where) | {
        'HOME': str(where.var / 'rabbitmq'),
        'RABBITMQ_NODENAME': 'novassm@localhost',
        'RABBITMQ_NODE_IP_ADDRESS': settings.HOST,
        'RABBITMQ_NODE_PORT': str(where.port('rabbitmq')),
        'RABBITMQ_DIST_PORT': str(where.port('rabbitmq-dist')),
        'RABBITMQ_MNESIA_BASE': str(where.var / 'rabbitmq'),
        'RABBITMQ_LOG_BASE': str(where.log / 'rabbitmq'),
        'RABBITMQ_CONFIG_FILE': str(where.etc / 'rabbitmq.conf'),
        'RABBITMQ_CONF_ENV_FILE': str(where.etc / 'rabbitmq-env.conf'),
        'RABBITMQ_ENABLED_PLUGINS_FILE': str(where.etc / 'rabbitmq-plugins'),
        'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS':
            '-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none',
        'ERL_EPMD_ADDRESS': settings.HOST,
        'ERL_EPMD_PORT': str(where.port('epmd')),
    }


def _infra(where: settings.Settings, name: str) -> process.Service:
    port = where.port(name)
    if name == 'mariadb':
        # As whoever calls: the directory may be closed to all others.
        return process.Service(
            name, ('/usr/sbin/mariadbd',
                   f'--defaults-file={where.etc / "mariadb.cnf"}',
                   f'--user={user()}'),
            environment(where), port, stop_timeout=60)
    if name == 'epmd':
        # Started here, and not by the broker, which would leave it behind.
        return process.Service(
            name, (_epmd(), '-port', str(port), '-address', settings.HOST,
                   '-relaxed_command_check'),
            rabbit_environment(where), port)
    if name == 'rabbitmq':
        # Not /usr/sbin/rabbitmq-server, which changes to another user.
        return process.Service(
            name, ('/usr/lib/rabbitmq/bin/rabbitmq-server',),
            rabbit_environment(where), port, stop_timeout=40)
    argv = ['memcached', '-l', settings.HOST, '-p', str(port), '-m', '64',
            '-c', '4096']
    if os.geteuid() == 0:
        argv += ['-u', 'root']
    return process.Service(name, tuple(argv), environment(where), port)


def _epmd() -> str:
    found = shutil.which('epmd') or next(
        (str(path) for path in
         sorted(pathlib.Path('/usr/lib/erlang').glob('erts-*/bin/epmd'))),
        None)
    if found is None:
        raise settings.CloudError(
            'no epmd: install the Debian package erlang-base')
    return found


def _api(where: settings.Settings, name: str) -> process.Service:
    module, threads = _WSGI[name]
    port = where.port(name)
    env = environment(where)
    if name in UNRULY:
        env |= {unruly.MODULE: module,
                unruly.FILE: str(where.unruly_file(name))}
        module = 'nova_ssm.tests.cloud.unruly_wsgi'
    argv = (
        str(where.venv / 'bin/uwsgi'),
        '--http-socket', f'{settings.HOST}:{port}',
        '--module', f'{module}:application', '--master', '--processes', '1',
        '--threads', str(threads), '--enable-threads', '--lazy-apps',
        '--die-on-term', '--need-app', '--buffer-size', '65535',
        '--so-keepalive', '--add-header', 'Connection: close',
        '--http-chunked-input', '--http-auto-chunked', '--disable-logging',
        '--procname-prefix', f'{name} ')
    return process.Service(name, argv, env, port)


def _nova(where: settings.Settings, name: str) -> process.Service:
    kind = 'scheduler'
    if name in settings.CONDUCTORS:
        kind = 'conductor'
    elif name in settings.COMPUTES:
        kind = 'compute'
    etc = where.etc / 'nova'
    argv = [str(where.venv / f'bin/nova-{kind}'),
            '--config-file', str(etc / 'nova.conf'),
            '--config-file', str(etc / f'{name}.conf')]
    env = environment(where)
    if where.orders is not None:
        argv += ['--config-file', str(where.orders / 'nova.conf')]
        env[injection_orders.VARIABLE] = str(where.orders)
        module = {'conductor': 'injection', 'compute': 'injection_compute'}
        if kind in module:
            argv[:1] = [str(where.venv / 'bin/python'), '-m',
                        f'nova_ssm.tests.cloud.{module[kind]}']
    return process.Service(name, tuple(argv), env, stop_timeout=60)


def get(where: settings.Settings, name: str) -> process.Service:
    """Return how a service is started.

    :raises CloudError: if there is no such service
    """
    if name in INFRA:
        return _infra(where, name)
    if name in APIS:
        return _api(where, name)
    if name in NOVA:
        return _nova(where, name)
    raise settings.CloudError(
        f'no service {name!r}; there are: ' + ', '.join(ALL))
