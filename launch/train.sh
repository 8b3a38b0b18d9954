#!/usr/bin/env bash
# Trains with the deepspeed launcher, on this machine or on the hosts of a file:
#
#   launch/train.sh configs/distill/multi30k_minilm.yaml optimization.epochs=3
#   HOSTFILE=launch/hostfile launch/train.sh configs/distill/multi30k_minilm.yaml
#
# The same command continues a run that was stopped.
set -euo pipefail
: "${1:?expected a configuration: launch/train.sh CONFIG.yaml [key=value ...]}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/env.sh
if [ -n "${HOSTFILE:-}" ]; then
    # Without a hostfile deepspeed would train on this machine alone, and with a host that does not answer it would wait.
    optical-scale doctor --hostfile "$HOSTFILE" >&2
fi
exec deepspeed ${HOSTFILE:+--hostfile "$HOSTFILE"} launch/train.py --config "$@"
