"""What is wrong with records and documents, before they come to a table."""
