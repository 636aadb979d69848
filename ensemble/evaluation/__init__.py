"""A model's answers judged: figures, intervals, tables and pictures."""
