"""Running a trained model: packed, length-aware, without readers and without training code."""
