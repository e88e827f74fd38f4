"""Questions, how they are asked, and how they are split."""
