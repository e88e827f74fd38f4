"""Teachers: who answers the questions that the student learns from."""
