#!/usr/bin/env bash
# Train on random data and print the time per iteration, on the CPU and on each GPU.
#
#   bench/dlrm_s_benchmark.sh [flags of the trainer, such as --num-batches=100]
#
# 8 tables of 1,000,000 rows and dimension 64, up to 100 ids per table and sample, 512 dense features, batches of
# 2048. ROWS=100000 makes the tables smaller. With --use-gpu, only GPUs are measured; CUDA_VISIBLE_DEVICES selects them.
# Logs are written to results/ (LOGDIR).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

rows=${ROWS:-1000000}
flags=(
    --data-generation=random --mini-batch-size=2048 --num-batches=1000 --print-freq=10 --print-time
    --num-indices-per-lookup=100 --round-targets=true --learning-rate=1.0
    --arch-mlp-bot=512-512-64 --arch-mlp-top=1024-1024-1024-1 --arch-sparse-feature-size=64
    --arch-embedding-size="$rows-$rows-$rows-$rows-$rows-$rows-$rows-$rows" --embedding-init=device
)
flags+=(${options[@]+"${options[@]}"})
PYTHONPATH=$root "$python" -m mlperf.cli.check_flags "${flags[@]}"

gpus=$("$python" -c 'import torch; print(torch.cuda.device_count())')
only_gpus=false
for flag in "${flags[@]}"; do
    [[ $flag != --use-gpu ]] || only_gpus=true
done
if [[ $only_gpus == false || $gpus -eq 0 ]]; then # without a GPU, the trainer refuses --use-gpu
    echo "--- CPU ---"
    run_logged benchmark_cpu "$python" "$root/dlrm_s_pytorch.py" "${flags[@]}"
fi
[[ $gpus -gt 0 ]] || echo "no GPU is visible: measured on the CPU only"
IFS=, read -ra visible <<<"${CUDA_VISIBLE_DEVICES:-}"
for ((gpu = 0; gpu < gpus; gpu++)); do
    echo "--- GPU ${visible[gpu]:-$gpu} ---"
    export CUDA_VISIBLE_DEVICES=${visible[gpu]:-$gpu}
    run_logged "benchmark_gpu${visible[gpu]:-$gpu}" "$python" "$root/dlrm_s_pytorch.py" "${flags[@]}" --use-gpu
done
