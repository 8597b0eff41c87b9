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
# What the plugin calls of devstack's functions, small, and for this machine: files of a
# directory, the Python environment that is named, SQLite. Processes are started for real.
#
#   HOME_DIR    where everything is
#   NOVA_BIN_DIR, NOVA_DIR, NOVA_CONF, TEMPEST_CONFIG    as in devstack

function enable_service { ENABLED_SERVICES="$ENABLED_SERVICES $*"; }
function is_service_enabled { [[ " $ENABLED_SERVICES " == *" $1 "* ]]; }
function echo_summary { echo "$@"; }
function conductor_conf { echo "$(dirname "$NOVA_CONF")/nova_cell$1.conf"; }
function database_connection_url { echo "sqlite:///$HOME_DIR/$1.db"; }
function recreate_database { rm -f "$HOME_DIR/$1.db"; }

# setup_develop DIRECTORY: it is installed already if its command is there.
function setup_develop {
    [[ -f "$1/setup.cfg" && -x "$NOVA_BIN_DIR/nova-ssm" ]] || return 1
    echo "setup_develop $1" >>"$HOME_DIR/calls"
}

# iniset FILE SECTION OPTION VALUE
function iniset {
    "$NOVA_BIN_DIR/python" -IS "$FUNCTIONS/ini.py" set "$@"
}

# inidelete FILE SECTION OPTION
function inidelete {
    "$NOVA_BIN_DIR/python" -IS "$FUNCTIONS/ini.py" delete "$@"
}

# run_process NAME COMMAND: as devstack, which lets systemd run it without a shell.
function run_process {
    local command
    read -ra command <<<"$2"
    "${command[@]}" >"$HOME_DIR/$1.log" 2>&1 </dev/null &
    echo $! >"$HOME_DIR/$1.pid"
}

function stop_process {
    local pid
    [[ -e "$HOME_DIR/$1.pid" ]] || return 0
    pid=$(cat "$HOME_DIR/$1.pid")
    rm "$HOME_DIR/$1.pid"
    kill "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
}
