"""Sample data: a small shop (`shop`), loaded once (`mongodb_seeder`) and then kept changing (`change_generator`)."""
