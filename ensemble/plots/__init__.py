"""Pictures of data, trainings, answers and their mistakes."""
