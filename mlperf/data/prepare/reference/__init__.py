"""The files that the reference of DLRM-DCNv2 prepares, byte for byte."""
