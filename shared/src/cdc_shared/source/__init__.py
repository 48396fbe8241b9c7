"""The source: connecting to MongoDB, and what its errors mean."""
