#!/usr/bin/env bash
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
#
# Restarts the conductors of the cloud of tools/cloud.sh in turn while servers are built, on stock
# Nova and with nova_ssm, and shows what became of the servers, how long they took, and how soon
# another conductor went on with what one had begun.
#
#   handover.sh [--mode ssm|stock|both] [--signal term|hup] [--restarts N] [--servers N]
#               [--every S] [--pause S] [--calm S] [--networks auto|none]
#
# Writes $NOVA_SSM_STATE/cloud/results/handover-*.json. Status 1 if nova_ssm failed, lost or doubled
# a server, or left something behind.
set -euo pipefail
# shellcheck source=tools/help.sh
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
ensure_venv
export NOVA_SSM_STATE=$STATE PYTHONPATH=$ROOT
exec "$PYTHON" -m nova_ssm.tests.cloud.handover "$@"
