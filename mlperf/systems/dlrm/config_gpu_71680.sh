# One GPU that holds the tables of the benchmark, or several (mlperf/docs/distributed.md).
# Hyperparameters of the MLPerf reference convergence point at global batch size 71680.
BENCHMARK=dlrm
BATCH_SIZE=71680
TEST_BATCH_SIZE=131072
LEARNING_RATE=26
WARMUP_STEPS=2500
DECAY_START_STEP=46821
DECAY_STEPS=15406
EPOCHS=1
TRAINER_FLAGS=(--use-gpu --embedding-init=device --precision=bf16)
