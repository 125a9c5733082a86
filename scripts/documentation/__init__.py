"""What builds the pages of the documentation from the code: index of errors, commands, knobs of the workflows, reference."""
