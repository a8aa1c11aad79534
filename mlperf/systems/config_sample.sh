# The made-up sample of tools/make_sample.py, on any machine: small batches, so that 240,000 rows are enough steps, and
# a rate at which the AUC rises evenly, so that rounding alone does not move the evaluation that meets the target.
BATCH_SIZE=256
TEST_BATCH_SIZE=4096
LEARNING_RATE=0.15
WARMUP_STEPS=0
DECAY_START_STEP=0
DECAY_STEPS=0
EPOCHS=2
TRAINER_FLAGS=()
