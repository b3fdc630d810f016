"""How it is trained: losses, schedules, initialisation, and the recipes that combine them."""
