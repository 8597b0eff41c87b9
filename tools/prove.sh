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
# Runs all that proves something, on stock Nova and with nova_ssm where both can be run, and writes
# doc/source/reliability.rst: by operation and fault, what was tried, survived, and left over.
#
#   prove.sh [--only PART]... [--seed N]          the quick parts: some minutes; its page goes to
#                                                 $NOVA_SSM_STATE/results/prove
#   prove.sh --long [--only PART]... [--seed N]   all of it: hours
#   prove.sh --from RESULTS...                    run nothing, take results of tools/chaos.sh, crash.sh,
#                                                 boundaries.sh, faults.sh, oracle.sh (summary.json), or
#                                                 what pytest --junitxml says of tests/ownership
#   prove.sh --last [--only PART]...              run nothing, take the last results of each
#
# PART is ownership, oracle, faults, faults-stock, crash, crash-moves, boundaries, or chaos. Results
# take the place of all earlier ones of their kind; the others stay. The results that the page is made
# of are kept in doc/source/reliability. Status 1 if something did not survive with nova_ssm, or was left over;
# 2 if something could not be run.
set -euo pipefail
# shellcheck source=tools/help.sh
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
ensure_venv
# Names of results are relative to where this is called from.
export NOVA_SSM_STATE=$STATE PYTHONPATH=$ROOT
exec "$PYTHON" -m nova_ssm.tests.proof.main "$@"
