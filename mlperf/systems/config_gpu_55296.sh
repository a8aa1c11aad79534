# One GPU that holds the Terabyte tables (96 GB in float32 at dimension 128 and 40,000,000 ids a column).
# Hyperparameters of the MLPerf reference convergence point at global batch size 55296.
BATCH_SIZE=55296
TEST_BATCH_SIZE=131072
LEARNING_RATE=24
WARMUP_STEPS=2750
DECAY_START_STEP=49315
DECAY_STEPS=27772
EPOCHS=1
TRAINER_FLAGS=(--use-gpu --embedding-init=device)
