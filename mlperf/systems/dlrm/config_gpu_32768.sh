# One GPU that holds the tables of the benchmark, or several (mlperf/docs/distributed.md).
# Hyperparameters of the MLPerf reference convergence point at global batch size 32768.
BENCHMARK=dlrm
BATCH_SIZE=32768
TEST_BATCH_SIZE=131072
LEARNING_RATE=18
WARMUP_STEPS=8000
DECAY_START_STEP=70000
DECAY_STEPS=30000
EPOCHS=1
TRAINER_FLAGS=(--use-gpu --embedding-init=device --precision=bf16)
