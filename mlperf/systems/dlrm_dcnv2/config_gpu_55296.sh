# One GPU that holds the tables and Adagrad's sums, or several (mlperf/docs/distributed.md).
# Hyperparameters of the MLPerf reference convergence point at global batch size 55296.
BENCHMARK=dlrm_dcnv2
BATCH_SIZE=55296
TEST_BATCH_SIZE=131072
LEARNING_RATE=0.004
WARMUP_STEPS=0
DECAY_START_STEP=0
DECAY_STEPS=0
EPOCHS=1
TRAINER_FLAGS=(--use-gpu --embedding-init=device --precision=bf16)
