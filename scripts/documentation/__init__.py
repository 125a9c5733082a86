"""What builds the pages of the documentation from the code: commands, hyperparameters of the workflows, reference."""
