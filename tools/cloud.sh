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
# An OpenStack control plane of real processes on this machine, in private directories below
# ${NOVA_SSM_STATE:-.state}/cloud and on ten loopback ports from NOVA_SSM_CLOUD_PORT (18700).
# Its services wait NOVA_SSM_CLOUD_RPC_TIMEOUT seconds (60) for an answer by RPC.
#
#   cloud.sh up [--stock|--ssm]       start what does not run; --ssm at first, then as last time
#   cloud.sh down [--wipe]            stop everything; --wipe removes its data
#   cloud.sh status [-f json]         name, pid, state, port, memory
#   cloud.sh kill|pause|resume NAME   SIGKILL, SIGSTOP, SIGCONT to the process group of a service
#   cloud.sh start|stop|restart NAME
#   cloud.sh logs [-f] [-n LINES] [NAME]
#   cloud.sh env                      eval "$(tools/cloud.sh env)", then use openstack
#   cloud.sh mode [ssm|stock]         show or change what the conductors run
#   cloud.sh tempest [--compare] [-j WORKERS] [REGEX]
#
# It needs Debian's rabbitmq-server, mariadb-server and memcached: root gets them installed.
set -euo pipefail
[ $# -gt 0 ] || set -- --help
# shellcheck source=tools/help.sh
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
ensure_venv
export NOVA_SSM_STATE=$STATE PYTHONPATH=$ROOT
exec "$PYTHON" -m nova_ssm.tests.cloud "$@"
