# One GPU that holds the tables of the benchmark, or several (mlperf/docs/distributed.md).
# Hyperparameters of the MLPerf reference convergence point at global batch size 55296.
BENCHMARK=dlrm
BATCH_SIZE=55296
TEST_BATCH_SIZE=131072
LEARNING_RATE=24
WARMUP_STEPS=2750
DECAY_START_STEP=49315
DECAY_STEPS=27772
EPOCHS=1
TRAINER_FLAGS=(--use-gpu --embedding-init=device --precision=bf16)
