# shellcheck shell=bash
# What every training process finds in its environment; sourced by train.sh and the Slurm job.
# A variable that is set already wins. With --hostfile, deepspeed forwards PATH, PYTHON*, NCCL*, UCX* and
# LD_LIBRARY* to the other nodes; anything else goes, one NAME=value a line, into ~/.deepspeed_env.

# The environment that `make demo` or `make install` created, if there is one.
if [ -d .venv/bin ]; then
    export PATH="$PWD/.venv/bin:$PATH"
fi

# Models are read from folders; a node without a network must not wait for a hub.
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"

# ZeRO-3 gathers and frees parameters of many sizes; growing segments keep the GPU's memory from fragmenting.
export PYTORCH_CUDA_ALLOC_CONF="${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}"

# On nodes with several networks name the one that connects them:
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0
