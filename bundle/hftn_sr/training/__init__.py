"""What the training workflow is made of."""
