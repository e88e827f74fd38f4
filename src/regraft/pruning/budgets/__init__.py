"""Budgets: of what the sparsity is a share, or what a model may cost."""
