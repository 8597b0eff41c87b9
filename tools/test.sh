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
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
  cat <<EOF
usage: tools/test.sh [--quick] [STEP...]

Checks the project, from an empty machine: prepares what it needs, runs the steps and prints a table.
Exits with 0 if every step passed. The output of each step is kept in
$STATE/results/test/STEP.log

  --quick   leaves out the steps that need the cloud of processes
  STEP      runs only these; known steps:

$(printf '              %s\n' "${STEPS[@]}")
EOF
}

QUICK=(lint unit functional boards nova oracle faults demo docs)
CLOUD=(cloud-up cloud crash prove)
STEPS=("${QUICK[@]}" "${CLOUD[@]}")
RESULTS=$STATE/results/test

# The time a step may take, in seconds: a step that hangs is a step that failed.
limit() {
  case $1 in
    lint | docs) echo 300 ;;
    setup | cloud-up | cloud) echo 1200 ;;
    unit | functional | boards | oracle | faults | crash) echo 900 ;;
    *) echo 600 ;;
  esac
}

# The steps. Each is run by itself: bash tools/test.sh --step NAME.
step_setup() { :; }    # what every step does first, by itself

step_lint() {
  cd "$ROOT"
  local failed=0
  "$VENV/bin/ruff" check . || failed=1
  "$VENV/bin/flake8" nova_ssm setup.py || failed=1
  "$VENV/bin/mypy" || failed=1
  return $failed
}

step_unit() {
  cd "$ROOT"
  "$PYTHON" -m pytest -q -n "$(nproc)" --dist worksteal nova_ssm/tests/unit
}

# The report of a flow is looked at in a real browser.
step_functional() {
  apt_install chromium
  cd "$ROOT"
  # The tests of one file share a Nova.
  "$PYTHON" -m pytest -q -n "$(nproc)" --dist loadfile nova_ssm/tests/functional
}

# The engine on real databases and job boards; what is patched on a real broker.
step_boards() {
  local kept=$RESULTS/boards-contract.log contract failed=0
  apt_install "${DATABASES[@]}" "${BOARDS[@]}" "${BROKER[@]}"
  cd "$ROOT"
  # Side by side: both wait for servers and leases more than they work.
  "$PYTHON" -m pytest -q nova_ssm/tests/servers nova_ssm/tests/boards >"$kept" 2>&1 &
  contract=$!
  "$PYTHON" -m pytest -q --junitxml="$STATE/results/prove/ownership.xml" nova_ssm/tests/ownership \
    || failed=1
  # The kill behind each row, which the unit tests try on SQLite.
  NOVA_SSM_TEST_DATABASE=postgresql "$PYTHON" -m pytest -q \
    nova_ssm/tests/unit/engine/test_{crashes,jobboard,recovery}.py || failed=1
  wait "$contract" || failed=1
  cat "$kept"
  return $failed
}

# Unit tests of what is patched, their own: of Nova's conductor, with nothing enabled, and of the
# rabbit driver of oslo.messaging.
step_nova() {
  local site dir=$RESULTS/nova
  "$VENV/bin/nova-ssm" patch status -f value -c status | grep -qx applied \
    || die "the nova of $VENV is not patched"
  site=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  rm -rf "$dir"; mkdir -p "$dir"; cd "$dir"
  "$VENV/bin/stestr" --test-path "$site/nova/tests/unit/conductor" --top-dir "$site" init
  "$VENV/bin/stestr" --test-path "$site/nova/tests/unit/conductor" --top-dir "$site" \
    run --concurrency "$(nproc)"
  "$PYTHON" -W ignore -m unittest oslo_messaging.tests.drivers.test_impl_rabbit
}

step_oracle() { "$ROOT/tools/oracle.sh" --sample 30 --restart; }

# Whether tools/faults.sh finds what it is there to find, and lets go of what holds.
step_faults() { cd "$ROOT" && "$PYTHON" -W ignore -m pytest -q nova_ssm/tests/faults; }

step_demo() { "$ROOT/tools/demo.sh"; }

step_docs() {
  cd "$ROOT"
  "$VENV/bin/sphinx-build" -q -W --keep-going -E -b html -d "$STATE/doc/doctrees" \
    doc/source "$STATE/doc/html"
  # reno reads the history of the notes; an archive of a release has none.
  if git -C "$ROOT" rev-parse -q --verify HEAD >/dev/null; then
    "$VENV/bin/reno" lint
  else
    say "no git history here: the release notes are not checked"
  fi
}

step_cloud-up() { "$ROOT/tools/cloud.sh" up; }

step_cloud() { cd "$ROOT" && "$PYTHON" -m pytest -q nova_ssm/tests/cloud; }

step_crash() { "$ROOT/tools/crash.sh" --rounds 2 --mode ssm; }

# What the steps before have shown, in one table.
step_prove() { "$ROOT/tools/prove.sh" --last; }

TABLE=()
PASSED=0
FAILED=0

# record NAME SECONDS RESULT: one line of the table.
record() {
  TABLE+=("$(printf '%-12s %5ss  %s' "$1" "$2" "$3")")
  if [ "$3" = passed ]; then PASSED=$((PASSED + 1)); else FAILED=$((FAILED + 1)); fi
}

run_step() {
  local name=$1 log=$RESULTS/$1.log start=$SECONDS rc=0 seconds
  say "== $name"
  timeout --kill-after=20 "$(limit "$name")" \
    bash "${BASH_SOURCE[0]}" --step "$name" >"$log" 2>&1 </dev/null || rc=$?
  seconds=$((SECONDS - start))
  if [ $rc = 0 ]; then
    record "$name" "$seconds" passed
    say "   passed, ${seconds}s"
    return 0
  fi
  tail -n 60 "$log" >&2
  [ $rc != 124 ] || say "   the step did not end within $(limit "$name") s"
  say "   FAILED (exit code $rc), ${seconds}s; all of it: $log"
  record "$name" "$seconds" FAILED
}

finish() {
  printf '\n%s\n' '----------------------------'
  printf '%s\n' "${TABLE[@]}"
  printf '%s\n' '----------------------------'
  printf '%s passed, %s failed\n' "$PASSED" "$FAILED"
  [ "$FAILED" = 0 ]
}

main() {
  local wanted=("${STEPS[@]}") named=() name
  while [ $# -gt 0 ]; do
    case $1 in
      --help | -h) usage; exit 0 ;;
      --quick) wanted=("${QUICK[@]}") ;;
      --step) ensure_venv; set -x; "step_$2"; exit ;;
      -*) die "unknown option $1; see --help" ;;
      *)
        printf '%s\n' "${STEPS[@]}" | grep -qx -- "$1" || die "there is no step $1; see --help"
        named+=("$1")
        ;;
    esac
    shift
  done
  [ ${#named[@]} = 0 ] || wanted=("${named[@]}")
  mkdir -p "$RESULTS"
  run_step setup
  [ "$FAILED" = 0 ] || { finish; exit 1; }
  for name in "${wanted[@]}"; do
    [ "$name" != cloud-up ] || trap '"$ROOT/tools/cloud.sh" down >/dev/null 2>&1 || true' EXIT
    run_step "$name"
  done
  finish
}

main "$@"
