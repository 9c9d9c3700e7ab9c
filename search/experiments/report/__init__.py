"""A comparison for people: one page, or Markdown, of what `compare` found."""
