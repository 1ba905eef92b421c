"""The model of section 3: tokens, masks, cross-attention, FusMAE. Knows tensors and no files."""
