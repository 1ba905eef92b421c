"""From an archive on disk to pairs of tensors: reading, checking, encoding to LMDB, synthetic scenes."""
