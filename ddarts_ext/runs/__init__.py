"""What every run has, whatever it computes: a folder, a device, figures, progress and a schedule."""
