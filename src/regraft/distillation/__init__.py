"""Distillation: what recovery minimises, and who teaches."""
