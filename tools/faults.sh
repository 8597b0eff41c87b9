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
# Lets everything go wrong, one thing after the other, and looks whether anything is left over.
#
#   faults.sh [--variant NAME]... [--flow NAME] [--case CASE]... [--quick] [--size N] [--seed N]
#             [--once] [--limit SECONDS] [-n WORKERS] [--stock] [--list] [--continue]
#
#   --variant NAME  only variants of this name (e.g. "build*"); --list names them all
#   --flow NAME     only faults in this flow
#   --case CASE     run this case, as it was printed when it did not hold
#   --quick         a sample of --size cases (70), chosen by --seed (1), as many from each flow
#   --continue      go on with the last run, with its options: with the cases that it has not ended,
#                   and those that have not held; with --case run these, and put them to its results
#   --once          leave out the cases with a second fault behind the first
#   --limit SECONDS begin no case after that time
#   -n WORKERS      processes, each with a Nova of its own (1)
#   --stock         do the same to stock Nova, for comparison
#
# Each task of each flow fails and is killed before and after its work, and at each change that it
# makes outside of its process; it is done twice; and while it is undone the same is done again.
# Then another conductor goes on, and databases, placement, neutron, cinder, guests and journal
# are looked at. Cases come mixed, in an order of --seed: what a run has tried is a fair sample.
# Status 1 if a case has not held. Results in ${NOVA_SSM_STATE:-.state}/faults, written after each
# 10 cases; each tells of which commit it is.
set -euo pipefail
# shellcheck source=tools/help.sh
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
ensure_venv
# The directory this is called from is no place to import from.
export PYTHONSAFEPATH=1
exec "$PYTHON" -W ignore -m nova_ssm.tests.faults --results "$STATE/faults" "$@"
