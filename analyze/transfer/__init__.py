"""The linear evidence across models: is what a feature says to be had from the other model, too?"""
