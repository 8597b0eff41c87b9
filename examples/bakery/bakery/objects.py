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

"""The versioned objects of the bakery."""

from oslo_versionedobjects import base
from oslo_versionedobjects import fields

from nova_ssm.engine import serialization


class BakeryObject(base.VersionedObject):
    """What all objects of the bakery share."""

    OBJ_PROJECT_NAMESPACE = 'bakery'


@base.VersionedObjectRegistry.register
class Loaf(BakeryObject):
    """A loaf, and where it was put."""

    VERSION = '1.0'
    fields = {'name': fields.StringField(),
              'oven': fields.IntegerField(nullable=True)}


class Objects(base.VersionedObjectSerializer):
    """Writes and reads them."""

    OBJ_BASE_CLASS = BakeryObject


def serializer(keys: tuple[str, ...] = ()) -> serialization.Serializer:
    """Journals what the tasks of the bakery take and give."""
    return serialization.Serializer(
        objects=Objects(), vault=serialization.Vault(keys))
