"""The DLRM model, its initialization and its loss."""
