"""The zoo: real trainings with a known truth, and what the rules say of them."""
