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
# Nova's own tests as the judge: what passes on stock Nova has to pass with the plugins on.
#
#   oracle.sh [--restart] [--stock-only | --ssm-only] [--workers N] [--sample N]
#             [--retries N] [--workflows LIST] [--exceptions FILE] [-f table|json] [LIST]
#   oracle.sh --find [--seconds N] [--afresh] [--write FILE] [--workers N] [--workflows LIST]
#             [--exceptions FILE] [LIST]
#
#   LIST              file of test ids of Nova, functional or unit, one a line; if not given, the
#                     functional tests in nova_ssm/tests/functional/lists/2026.2.txt; "all" is
#                     2026.2-all.txt beside it, all of them that run flows
#   --find            find those: run each functional test of Nova, or each of LIST, as --restart
#                     does, stock Nova only for what fails, and write the ids of those that ran
#                     flows to FILE (2026.2-all.txt). Hours of it: each answer is kept, and the
#                     next call goes on where this one was ended, with what failed first
#   --seconds N       end after so many seconds
#   --afresh          begin from the beginning
#   --restart         run them a third time, with the engine thrown away and every flow loaded
#                     again from the journal after each task
#   --stock-only      run stock Nova only
#   --ssm-only        compare with the kept results of stock Nova; what has none counts as passing
#   --workers N       processes that run tests (2)
#   --sample N        an evenly spaced sample of N tests
#   --retries N       run what fails again, alone; what passes then is named as unstable (0; what
#                     fails on stock Nova is always run again)
#   --workflows LIST  value of [ssm] workflows (build_instances,resize,live_migrate)
#   --exceptions FILE tests that are not counted, with the reasons
#
# Status 1 if a test newly fails, or if no test ran a flow; 2 if the tests could not be run. The
# results are kept below ${NOVA_SSM_STATE:-.state}/oracle. With OS_NOVA_DISABLE_EVENTLET_PATCHING=True
# in the environment the tests use native threads instead of eventlet.
set -euo pipefail
# shellcheck source=tools/help.sh
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
ensure_venv
# The directory this is called from is no place to import from.
export PYTHONSAFEPATH=1
program=oracle
if [ "${1:-}" = --find ]; then
  program=oracle_find
  shift
fi
exec "$PYTHON" -m "nova_ssm.tests.functional.$program" --results "$STATE/oracle" "$@"
