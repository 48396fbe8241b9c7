"""Rules over documents: transformation, masking and validation, the same for whoever applies them."""
