"""The stages as jobs of a Slurm cluster: scripts, their submission, and what the queue says."""
