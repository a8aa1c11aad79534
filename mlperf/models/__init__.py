"""The DLRM and its parts."""
