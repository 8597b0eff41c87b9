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
# Measures what durable flows cost, prints a table, and draws a plot.
#
#   bench.sh engine [OPTIONS]     the engine beside other runners of the same flows
#   bench.sh builds [OPTIONS]     builds beside stock Nova in one process: statements, processor
#   bench.sh load [OPTIONS]       the engine under the build requests of a busy cloud
#   bench.sh conductor [OPTIONS]  nova-conductor with and without nova_ssm, on a cloud
#   bench.sh scale [OPTIONS]      a million flows in the tables: times and query plans
#   bench.sh COMMAND --help       the options of a benchmark
#
# Results are kept in ${NOVA_SSM_STATE:-.state}/results/bench. Each benchmark is a module
# nova_ssm.tests.bench.COMMAND.
set -euo pipefail
usage() { sed -n '/^# Measures/,/^# nova_ssm/s/^# \{0,1\}//p' "$0"; }
command=${1:---help}
case $command in
  -h | --help)
    usage
    exit 0
    ;;
esac
shift
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
# Which environment a benchmark runs in: ensure_venv has Nova, ensure_bench_venv the other runners
# and matplotlib.
case $command in
  engine | load)
    apt_install "${DATABASES[@]}"
    ensure_bench_venv
    # What libraries say of Eventlet, once a process.
    export PYTHONWARNINGS=ignore
    ;;
  scale)
    apt_install "${DATABASES[@]}"
    ensure_venv
    ;;
  builds)
    # Nova tells of what it finds in its own fixtures.
    export PYTHONWARNINGS=ignore
    ensure_venv
    ;;
  conductor)
    # The cloud needs the one, the plot and the profiler the other.
    ensure_bench_venv
    export NOVA_SSM_BENCH_PYTHON=$PYTHON
    ensure_venv
    ;;
  *)
    usage >&2
    die "there is no benchmark $command"
    ;;
esac
export NOVA_SSM_STATE=$STATE PYTHONPATH=$ROOT
exec "$PYTHON" -m "nova_ssm.tests.bench.$command" "$@"
