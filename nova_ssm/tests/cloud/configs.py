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
"""Writes the configuration files from the templates."""

import os
import pathlib
import re
import shutil

from cryptography import fernet

from nova_ssm.tests.cloud import settings

_MARK = re.compile(r'@([A-Za-z]+)(?::([\w-]+))?@')
_TEMPLATES = settings.HERE / 'templates'

#: template -> file under etc
_FILES = {
    'mariadb.cnf': 'mariadb.cnf',
    'rabbitmq.conf': 'rabbitmq.conf',
    'keystone.conf': 'keystone/keystone.conf',
    'placement.conf': 'placement/placement.conf',
    'glance-api.conf': 'glance/glance-api.conf',
    'neutron.conf': 'neutron/neutron.conf',
    'ml2_conf.ini': 'neutron/plugins/ml2/ml2_conf.ini',
    'nova.conf': 'nova/nova.conf',
}
#: What the packages of the services bring along.
_PASTE = {
    'glance/glance-api-paste.ini': 'glance',
    'neutron/api-paste.ini': 'neutron',
    'nova/api-paste.ini': 'nova',
}
_DIRECTORIES = (
    'mariadb', 'rabbitmq', 'home', 'keystone', 'neutron', 'nova/instances',
    'glance/images', 'glance/staging', 'glance/tasks', 'glance/cache')


class Writer:
    """Renders templates for one cloud."""

    def __init__(self, where: settings.Settings) -> None:
        self._settings = where

    def _value(self, kind: str, name: str | None,
               extra: dict[str, str]) -> str:
        where = self._settings
        if kind in extra:
            return extra[kind]
        if name is not None:
            return {'PORT': lambda n: str(where.port(n)), 'URL': where.url,
                    'DB': where.database_url,
                    'CONDUCTORDB': self._conductor_url}[kind](name)
        return {
            'VAR': str(where.var), 'LOG': str(where.log),
            'ETC': str(where.etc), 'VENV': str(where.venv),
            'PASSWORD': where.password,
            'TIMEOUT': str(where.rpc_timeout),
            'DEBUG': str(where.debug).lower(),
            'TRANSPORT': (f'rabbit://openstack:{where.password}@'
                          f'{settings.HOST}:{where.port("rabbitmq")}/'),
        }[kind]

    def _conductor_url(self, name: str) -> str:
        return self._settings.database_url(name, settings.CONDUCTOR_USER)

    def render(self, template: str, **extra: str) -> str:
        """Return the text of a template.

        :param extra: values for marks that only this template has
        :raises KeyError: if the template has a mark of unknown meaning
        """
        text = (_TEMPLATES / template).read_text()
        return self.render_text(text, **extra)

    def render_text(self, text: str, **extra: str) -> str:
        """Return a text with its marks replaced."""
        return _MARK.sub(
            lambda m: self._value(m.group(1), m.group(2), extra), text)

    def write(self, template: str, target: str, **extra: str) -> None:
        """Render a template into a file under etc, readable by us only."""
        path = self._settings.etc / target
        private_file(path, self.render(template, **extra))

    def write_all(self) -> None:
        """Write everything but the conductors' files, make directories."""
        where = self._settings
        for name in _DIRECTORIES:
            (where.var / name).mkdir(parents=True, exist_ok=True)
        for path in (where.etc, where.log, where.run, where.results):
            path.mkdir(parents=True, exist_ok=True)
        (where.log / 'rabbitmq').mkdir(exist_ok=True)
        for template, target in _FILES.items():
            self.write(template, target)
        for target, project in _PASTE.items():
            shutil.copy(where.venv / 'etc' / project
                        / pathlib.Path(target).name, where.etc / target)
        private_file(where.etc / 'rabbitmq-plugins', '[].\n')
        private_file(where.etc / 'rabbitmq-env.conf', '')
        self.write('nova-scheduler.conf', 'nova/scheduler.conf',
                   NAME='scheduler')
        for name in settings.COMPUTES:
            self.write('nova-compute.conf', f'nova/{name}.conf', NAME=name)
            (where.var / name / 'instances').mkdir(parents=True,
                                                   exist_ok=True)

    def write_conductors(self, mode: str) -> bool:
        """Write the conductors' files.

        :param mode: ``ssm`` or ``stock``
        :returns: whether that changed one
        """
        changed = False
        text = ''
        if mode == 'ssm':
            text = self.render('nova-conductor-ssm.conf',
                               KEY=encryption_key(self._settings))
        for name in settings.CONDUCTORS:
            path = self._settings.etc / f'nova/{name}.conf'
            new = self.render('nova-conductor.conf', NAME=name) + text
            if not path.exists() or path.read_text() != new:
                private_file(path, new)
                changed = True
        return changed


def private_file(path: pathlib.Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, 'w') as stream:
        stream.write(text)


def encryption_key(where: settings.Settings) -> str:
    """Return the key of the journal's secrets; made once, then kept."""
    path = where.etc / 'ssm.key'
    if not path.exists():
        private_file(path, fernet.Fernet.generate_key().decode() + '\n')
    return path.read_text().strip()
