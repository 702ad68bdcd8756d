"""The catalogue of diagnoses: every code and its name, whether or not its rule exists yet."""

import re

# Codes are stable and never used again; a name belongs to its code.
CODES = """
101 class-imbalance, 102 majority-collapse, 103 metric-hides-minority, 104 threshold-off-best,
105 classes-missing-from-batches, 106 label-noise, 107 unnormalised-inputs, 108 unnormalised-targets,
109 train-val-shift, 110 duplicates-and-leakage, 111 broken-features,
201 overfitting, 202 overconfidence, 203 trained-past-best, 204 underfitting, 205 stopped-too-early,
206 over-regularised, 207 sample-starved, 208 constant-prediction,
301 vanishing-gradients, 302 exploding-gradients, 303 non-finite, 304 dead-units, 305 saturated-activations,
306 stuck-gates, 307 layers-near-initialisation, 308 always-clipped, 309 bad-initialisation,
401 saddle-point, 402 flat-plateau, 403 step-beyond-stability,
501 l1-without-proximal-step, 502 l2-through-adaptive-optimiser, 503 nothing-regularises, 504 weights-growing,
601 learning-rate-too-high, 602 learning-rate-too-low, 603 oscillating-loss, 604 loss-spikes,
701 train-mode-in-validation, 702 eval-mode-in-training, 703 loss-output-mismatch, 704 gradients-not-zeroed,
705 parameters-left-out, 706 missing-nonlinearity, 707 batch-dependence, 708 failing-step, 709 not-judgeable,
710 batch-not-fitted, 711 high-first-loss, 712 future-leakage,
801 full-fine-tuning-on-few-samples, 802 frozen-parameters-in-optimiser, 803 frozen-batch-norm-updating
"""
NAMES = {f"TW{code}": name for code, name in re.findall(r"(\d{3}) ([a-z0-9-]+)", CODES)}
