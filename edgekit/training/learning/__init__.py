"""Learning of a student from the values of a teacher, by gradients."""
