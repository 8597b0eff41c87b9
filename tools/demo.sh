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
# The demo: a conductor is killed in the middle of a request for several servers, and what was
# in its hands is finished all the same.
#
#   demo.sh [--stock] [--cloud] [--servers N] [--dir DIR] [-v]
#
#   --stock      the same with the plugins off, for comparison: servers stay in BUILD for ever
#   --cloud      on the cloud of processes (tools/cloud.sh up), where another conductor takes over
#                (it is killed there: nobody else may be using the cloud);
#                else in two processes of its own: no root, no services
#   --servers N  in the one request (8)
#   --dir DIR    where its files go (${NOVA_SSM_STATE:-.state}/demo)
#   -v           say each step of each flow
#
# Status 0 if all ended as it should, 1 if not, 2 if the demo could not run.
set -euo pipefail
# shellcheck source=tools/help.sh
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
ensure_venv
export NOVA_SSM_STATE=$STATE
# The directory this is called from is no place to import from.
export PYTHONSAFEPATH=1
exec "$PYTHON" -m nova_ssm.tests.demo.main --dir "$STATE/demo" "$@"
