"""Pictures of trials and studies: for the dashboard and for people."""
