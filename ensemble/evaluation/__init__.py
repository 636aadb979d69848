"""A model's answers judged: figures, intervals and reports."""
