"""What distilling needs besides its losses: layers that are watched, and a teacher's answers that are kept."""
