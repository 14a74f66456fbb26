"""Recipes: the strict schema (`schema`), and loading one from YAML with every error at once (`load`)."""
