# Synthetic sample (tools/make_sample.py), on any machine. Small batches give enough steps. The learning rate is low
# enough that the number of evaluations to the target does not depend on rounding.
BENCHMARK=dlrm
BATCH_SIZE=256
TEST_BATCH_SIZE=4096
LEARNING_RATE=0.15
WARMUP_STEPS=0
DECAY_START_STEP=0
DECAY_STEPS=0
EPOCHS=2
TRAINER_FLAGS=()
