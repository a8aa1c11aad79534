# Any machine without a GPU that holds the tables of the benchmark (mlperf/docs/training.md).
# Hyperparameters of the reference implementation of the benchmark on a CPU.
BENCHMARK=dlrm
BATCH_SIZE=2048
TEST_BATCH_SIZE=16384
LEARNING_RATE=1.0
WARMUP_STEPS=0
DECAY_START_STEP=0
DECAY_STEPS=0
EPOCHS=1
TRAINER_FLAGS=()
