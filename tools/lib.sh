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
# Sourced by the other scripts of this directory:
#   ROOT         the checkout
#   STATE        where venvs, clouds and results live (NOVA_SSM_STATE, default ROOT/.state)
#   NOVA_RELEASE the Nova release of the constraints, e.g. 2026.2
#   ensure_uv    installs uv into STATE/tools; sets UV
#   ensure_venv  makes STATE/venv: Nova with the patches, what its tests need, and this project,
#                editable; sets VENV and PYTHON
#   ensure_bench_venv  makes STATE/bench/venv: this project without Nova, the runners that it is
#                measured beside, and matplotlib; sets VENV and PYTHON
# All are quick when nothing has changed, and may run side by side.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
STATE=${NOVA_SSM_STATE:-$ROOT/.state}
NOVA_RELEASE=${NOVA_RELEASE:-2026.2}
CONSTRAINTS=$ROOT/constraints/$NOVA_RELEASE.txt
mkdir -p "$STATE"
STATE=$(cd "$STATE" && pwd)
# With it every process would compile all of Nova anew.
unset PYTHONDONTWRITEBYTECODE
# Nova's tests, the clouds and uv itself must not see a venv that happens to be active.
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# as_root COMMAND...: runs it as it is, or with sudo for who is not root.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# apt_install PACKAGE...: installs the Debian packages that are missing.
apt_install() {
  local missing=() p
  for p in "$@"; do
    dpkg -s "$p" 2>/dev/null | grep -q '^Status:.* installed$' || missing+=("$p")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "install these first: ${missing[*]}"
  say "installing Debian packages: ${missing[*]}"
  # Two of us at once wait for each other; so does apt itself for others.
  as_root env DEBIAN_FRONTEND=noninteractive flock /run/lock/nova-ssm-apt \
    sh -c "$APT_QUIETLY" sh "${missing[@]}" || die "apt-get could not install: ${missing[*]}"
}

# Installs its arguments. Debian starts the services that it installs, unless this file says no:
# what we need of them we start ourselves, on ports and with files of our own.
APT_QUIETLY='
  policy=/usr/sbin/policy-rc.d
  [ ! -e $policy ] || mv $policy $policy.nova-ssm
  trap "rm -f $policy; [ ! -e $policy.nova-ssm ] || mv $policy.nova-ssm $policy" EXIT
  printf "#!/bin/sh\nexit 101\n" >$policy && chmod 755 $policy
  apt-get -o DPkg::Lock::Timeout=300 update -qq
  apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@" >/dev/null
'

# The servers that tests start: see nova_ssm/tests/servers.
DATABASES=(mariadb-server postgresql galera-4 rsync)
BOARDS=(zookeeper etcd-server redis-server)
BROKER=(rabbitmq-server)

# find_python: prints the first Python that is new enough.
find_python() {
  local p
  for p in "${NOVA_SSM_PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    [ -n "$p" ] || continue
    "$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    "$p" -c 'import sys; print(sys.executable)'
    return 0
  done
  die "Python 3.11 or newer is needed; name one in NOVA_SSM_PYTHON"
}

ensure_uv() {
  UV=$STATE/tools/bin/uv
  local python
  if [ ! -x "$UV" ]; then
    python=$(find_python)
    exec 8>"$STATE/.tools.lock"; flock 8
    if [ ! -x "$UV" ]; then
      # Debian splits ensurepip off into a package of its own.
      "$python" -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
      "$python" -m venv "$STATE/tools"
      "$STATE/tools/bin/python" -m pip install -q --disable-pip-version-check uv \
        || die "pip could not install uv; is PyPI reachable?"
    fi
    exec 8>&-
  fi
  export UV
}

# Everything that decides what is in the venv.
venv_inputs() (
  cd "$ROOT"
  for f in requirements.txt test-requirements.txt doc/requirements.txt setup.cfg setup.py \
    pyproject.toml entry_points.txt tools/lib.sh "constraints/$NOVA_RELEASE.txt" \
    "patches/$NOVA_RELEASE"/{,*/}*.patch; do
    printf '%s ' "$f"; sha256sum <"$f"
  done
  printf '%s\n' "$ROOT" "$NOVA_RELEASE"
)

# Nova's tests look for etc/ and for the samples of doc/ beside the nova package. A wheel puts the
# one elsewhere and leaves the other out.
venv_nova_extras() {
  local site tmp version
  site=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  ln -sfn ../../../etc "$site/etc"
  version=$("$PYTHON" -c 'from importlib import metadata; print(metadata.version("nova"))')
  [ "$(cat "$site/doc/.nova" 2>/dev/null)" = "$version" ] && return 0
  tmp=$(mktemp -d "$STATE/.nova-sdist.XXXXXX")
  # No build isolation: the metadata needs only pbr and setuptools, which the venv has.
  "$PYTHON" -m pip download -q --disable-pip-version-check --no-deps --no-binary nova \
    --no-build-isolation -d "$tmp" "nova==$version" \
    || { rm -rf "$tmp"; die "could not fetch the source archive of nova $version"; }
  mkdir -p "$site/doc"
  tar xzf "$tmp"/nova-*.tar.gz -C "$tmp" --no-same-owner
  cp -r "$tmp"/nova-*/doc/{api_samples,notification_samples,api_schemas} "$site/doc/"
  printf '%s\n' "$version" >"$site/doc/.nova"
  rm -rf "$tmp"
}

# That oslo.messaging cannot be patched is only a warning to the command.
venv_patched() {
  "$VENV/bin/nova-ssm" patch apply >/dev/null
  [ "$("$VENV/bin/nova-ssm" patch status -f value -c status -c messaging_status | uniq)" = applied ]
}

venv_patch() {
  venv_patched 2>/dev/null && return 0
  # An earlier version of a patch is in the way: begin with fresh files.
  "$UV" pip install -q -p "$PYTHON" -c "$CONSTRAINTS" --no-deps --reinstall-package nova \
    --reinstall-package oslo.messaging nova oslo.messaging
  venv_patched
}

ensure_venv() {
  ensure_uv
  VENV=$STATE/venv
  PYTHON=$VENV/bin/python
  export VENV PYTHON
  local stamp=$VENV/.stamp want
  want=$(venv_inputs | sha256sum)
  [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && return 0
  exec 9>"$STATE/.venv.lock"; flock 9
  if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
    say "preparing $VENV (a minute or two the first time)"
    [ -x "$PYTHON" ] || "$UV" venv -q -p "$(find_python)" "$VENV"
    (cd "$ROOT" && "$UV" pip install -q --compile-bytecode -p "$PYTHON" -c "$CONSTRAINTS" \
      -r requirements.txt -r test-requirements.txt -r doc/requirements.txt pip -e .) \
      || die "the packages of $VENV could not be installed"
    venv_nova_extras
    venv_patch || die "the patches do not apply in $VENV"
    printf '%s\n' "$want" >"$stamp"
  fi
  exec 9>&-
}

ensure_bench_venv() {
  ensure_uv
  VENV=$STATE/bench/venv
  PYTHON=$VENV/bin/python
  export VENV PYTHON
  local stamp=$VENV/.stamp want needs=$ROOT/nova_ssm/tests/bench/requirements.txt
  want=$(cat "$needs" "$ROOT/requirements.txt" "$CONSTRAINTS" "$ROOT/entry_points.txt" | sha256sum)
  [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && return 0
  mkdir -p "$STATE/bench"
  exec 7>"$STATE/bench/.lock"; flock 7
  if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
    say "preparing $VENV"
    [ -x "$PYTHON" ] || "$UV" venv -q -p "$(find_python)" "$VENV"
    (cd "$ROOT" && "$UV" pip install -q --compile-bytecode -p "$PYTHON" -c "$CONSTRAINTS" \
      -r requirements.txt -r "$needs" -e .) \
      || die "the packages of $VENV could not be installed"
    printf '%s\n' "$want" >"$stamp"
  fi
  exec 7>&-
}
