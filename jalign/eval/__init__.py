"""What a trained model is worth: numbers from held-out data."""
