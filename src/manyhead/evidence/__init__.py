"""Evidence: what finished runs show, read from their folders alone; nothing is trained and no model is loaded."""
