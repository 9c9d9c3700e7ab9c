"""What people look at: the terminal, notes, figures and the dashboard."""
