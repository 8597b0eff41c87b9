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
"""How the documentation is built."""

import logging
import os
import sys

from nova import objects

from nova_ssm import version

project = 'nova_ssm'
copyright = 'nova_ssm developers'
release = version.__version__
version = release.rpartition('.')[0]

# Nova fills nova.objects when a service starts; the flows name its classes.
objects.register_all()

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'ext'))

extensions = [
    'cliff.sphinxext',
    'flow_pictures',
    'openstackdocstheme',
    'oslo_config.sphinxext',
    'sphinx.ext.autodoc',
]
html_theme = 'openstackdocs'
openstackdocs_auto_name = False
openstackdocs_repo_name = 'nova_ssm'
openstackdocs_use_storyboard = False
# The version is the package's, not that of a git tag.
openstackdocs_auto_version = False
pygments_style = 'native'
master_doc = 'index'
exclude_patterns = ['_build']
autodoc_typehints = 'description'

# The theme names the commit; an archive of a release has none.
logging.getLogger('sphinx.openstackdocstheme.ext').addFilter(
    lambda record: 'gitsha' not in record.getMessage())
