"""What scores are worth: intervals around them, and tests of differences between models or recipes.

All are pure functions of predictions and a seed. What each number means stands in ``docs/evidence.md``.
"""
