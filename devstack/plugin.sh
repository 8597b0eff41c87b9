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
# A plugin of devstack: enable_plugin nova_ssm <where the repository is>
#
#   stack install       installs the package, patches Nova and oslo.messaging
#   stack post-config   makes the key and the tables, writes nova.conf
#   stack extra         starts the other conductors
#   stack test-config   tells tempest what there is
#   unstack, clean      the way back

NOVA_SSM_XTRACE=$(set +o | grep xtrace)
set +o xtrace

# The configuration files of the conductors that devstack starts.
function nova_ssm_confs {
    local number
    echo "$NOVA_CONF"
    if [[ "${CELLSV2_SETUP:-superconductor}" == "superconductor" ]]; then
        for number in $(seq 1 "${NOVA_NUM_CELLS:-1}"); do
            conductor_conf "$number"
        done
    fi
}

# The configuration file of a conductor that is ours.
function nova_ssm_conf {
    echo "$(dirname "$NOVA_CONF")/nova_ssm_conductor$1.conf"
}

# The oslo.messaging is that of the Python of nova-ssm, which is Nova's.
function nova_ssm_patch {
    "$NOVA_BIN_DIR/nova-ssm" patch "$1" --nova-path "$NOVA_DIR" --release "$NOVA_SSM_RELEASE"
}

function nova_ssm_install {
    setup_develop "$NOVA_SSM_DIR"
    nova_ssm_patch apply
}

function nova_ssm_configure {
    local conf connection key
    recreate_database "$NOVA_SSM_DATABASE"
    connection=$(database_connection_url "$NOVA_SSM_DATABASE")
    # Not a word of it in the logs: xtrace is off.
    key=$("$NOVA_BIN_DIR/nova-ssm" key new)
    for conf in $(nova_ssm_confs); do
        iniset "$conf" conductor compute_task_manager nova_ssm
        iniset "$conf" ssm workflows "$NOVA_SSM_WORKFLOWS"
        iniset "$conf" ssm connection "$connection"
        iniset "$conf" ssm encryption_keys "$key"
    done
    "$NOVA_BIN_DIR/nova-ssm" --config-file "$NOVA_CONF" db sync
}

function nova_ssm_start {
    local number conf
    for number in $(seq 2 "$NOVA_SSM_CONDUCTORS"); do
        conf=$(nova_ssm_conf "$number")
        # Its own host: two services of one name would be one to Nova.
        (umask 077 && cp "$NOVA_CONF" "$conf")
        iniset "$conf" DEFAULT host "$(hostname)-ssm$number"
        run_process "n-ssm-cond$number" "$NOVA_BIN_DIR/nova-conductor --config-file $conf"
    done
}

function nova_ssm_stop {
    local number
    for number in $(seq 2 "$NOVA_SSM_CONDUCTORS"); do
        stop_process "n-ssm-cond$number"
    done
}

function nova_ssm_test_config {
    iniset "$TEMPEST_CONFIG" service_available nova_ssm True
    iniset "$TEMPEST_CONFIG" nova_ssm workflows "$NOVA_SSM_WORKFLOWS"
    iniset "$TEMPEST_CONFIG" nova_ssm nova_ssm_command \
        "$NOVA_BIN_DIR/nova-ssm --config-file $NOVA_CONF"
    if [[ "$NOVA_SSM_CONDUCTORS" -gt 1 ]]; then
        # The tests run as the user who owns the service's process.
        iniset "$TEMPEST_CONFIG" nova_ssm kill_command \
            "sudo systemctl kill --signal=SIGKILL devstack@n-ssm-cond2"
        iniset "$TEMPEST_CONFIG" nova_ssm start_command \
            "sudo systemctl restart devstack@n-ssm-cond2"
    fi
}

function nova_ssm_clean {
    local number conf
    nova_ssm_patch revert
    for conf in $(nova_ssm_confs); do
        if [[ -e "$conf" ]]; then
            inidelete "$conf" conductor compute_task_manager
        fi
    done
    for number in $(seq 2 "$NOVA_SSM_CONDUCTORS"); do
        rm -f "$(nova_ssm_conf "$number")"
    done
}

if is_service_enabled nova-ssm; then
    case "$1 ${2:-}" in
        "stack install")
            echo_summary "Installing nova_ssm"
            nova_ssm_install
            ;;
        "stack post-config")
            echo_summary "Configuring nova_ssm"
            nova_ssm_configure
            ;;
        "stack extra")
            echo_summary "Starting the other conductors"
            nova_ssm_start
            ;;
        "stack test-config")
            if is_service_enabled tempest; then
                nova_ssm_test_config
            fi
            ;;
        "unstack ")
            nova_ssm_stop
            ;;
        "clean ")
            nova_ssm_clean
            ;;
    esac
fi

$NOVA_SSM_XTRACE
