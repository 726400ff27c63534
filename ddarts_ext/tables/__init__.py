"""Published accuracies of architectures, looked up instead of trained."""
