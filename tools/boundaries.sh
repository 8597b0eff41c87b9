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
# Does each operation in the cloud of tools/cloud.sh again and again, and lets the conductor that
# works on it kill itself at each boundary of each task, in the middle of each task, and where a
# task has returned and nothing of that is journaled; on the way back, too.
#
#   boundaries.sh [--operation NAME]... [--point boundary|middle|done]... [--flow NAME] [--task NAME]
#                 [--every-change] [--no-failures] [--without RESULTS]... [--seed N] [--lease S]
#                 [--rpc-timeout S]
#   boundaries.sh --list              show all points of all graphs
#
# Writes $NOVA_SSM_STATE/cloud/results/boundaries-*.json. Status 1 if a server came to harm,
# something was left over, or a point was not reached.
set -euo pipefail
# shellcheck source=tools/help.sh
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
ensure_venv
# The graphs are read here, but nothing of Nova runs here.
export NOVA_SSM_STATE=$STATE PYTHONPATH=$ROOT OS_NOVA_DISABLE_EVENTLET_PATCHING=True
exec "$PYTHON" -W ignore -m nova_ssm.tests.cloud.boundaries "$@"
