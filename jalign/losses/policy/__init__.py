"""Losses on the policy's own samples: policy gradients, value regression, KL and entropy terms."""
