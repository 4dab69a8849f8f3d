"""What makes the book: the environment, the runs, the pages, and the checks of both."""
