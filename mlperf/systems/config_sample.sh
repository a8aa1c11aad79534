# The made-up sample of tools/make_sample.py, on any machine: small batches, so that 240,000 rows are enough steps.
BATCH_SIZE=512
TEST_BATCH_SIZE=4096
LEARNING_RATE=1.0
WARMUP_STEPS=100
DECAY_START_STEP=0
DECAY_STEPS=0
EPOCHS=2
AUC_TARGET=0.8025
MAX_IND_RANGE=40000000
TRAINER_FLAGS=()
