"""Which features only one model has, and how often such a verdict is wrong."""
