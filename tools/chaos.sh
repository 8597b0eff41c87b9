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
# Breaks the cloud of tools/cloud.sh in all ways while it builds, resizes, moves and deletes servers:
# conductors and computes die, sleep and are stopped, the broker and the database go away, placement
# and neutron answer with errors, late, or not at all. Counts what became of each request.
#
#   chaos.sh [--minutes M] [--mode ssm|stock|both] [--seed N] [--fault NAME]... [--every S]
#            [--settle S]
#   chaos.sh --list                   show all faults
#   chaos.sh --plan [--seed N] ...    show what would happen, and when
#
# The same seed is the same plan. Writes $NOVA_SSM_STATE/cloud/results/chaos-*.json, and beside it the
# lines of the logs about each server that is not well. A cloud in which something is left over is
# wiped before. Status 1 if nova_ssm left a server stuck, or anything over.
set -euo pipefail
# shellcheck source=tools/help.sh
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
ensure_venv
export NOVA_SSM_STATE=$STATE PYTHONPATH=$ROOT
exec "$PYTHON" -m nova_ssm.tests.cloud.chaos "$@"
