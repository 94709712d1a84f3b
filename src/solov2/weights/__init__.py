"""Names and files become weights; what a file must carry is checked before anything is loaded."""
