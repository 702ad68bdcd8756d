"""What a run has, measured by training it plainly: no rule and no record is asked."""
