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
# Builds or moves servers in the cloud of tools/cloud.sh, kills the conductor that works on them at
# a random moment, and counts what became of them, on stock Nova and with nova_ssm.
#
#   crash.sh [--operation OPERATION] [--rounds N] [--servers N] [--mode ssm|stock|both]
#            [--networks auto|none] [--seed S]
#
# OPERATION is build (the default), resize, cold-migrate, live-migrate, live-migrate-forced,
# live-migrate-retry (the first destination refuses), or moves: all of these but build.
# Writes $NOVA_SSM_STATE/cloud/results/crash-*.json. Status 1 if nova_ssm lost or doubled a server,
# or left something behind.
set -euo pipefail
# shellcheck source=tools/help.sh
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
ensure_venv
export NOVA_SSM_STATE=$STATE PYTHONPATH=$ROOT
exec "$PYTHON" -m nova_ssm.tests.cloud.crash "$@"
