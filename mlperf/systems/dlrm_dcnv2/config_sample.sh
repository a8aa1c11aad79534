# Synthetic sample (tools/make_sample.py), on any machine. Small batches give enough steps.
BENCHMARK=dlrm_dcnv2
BATCH_SIZE=512
TEST_BATCH_SIZE=2048
LEARNING_RATE=0.001
WARMUP_STEPS=0
DECAY_START_STEP=0
DECAY_STEPS=0
EPOCHS=1
TRAINER_FLAGS=()
