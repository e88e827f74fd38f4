"""From records to curves, comparisons, tables and figures. Reads what runs leave behind, never a model."""
