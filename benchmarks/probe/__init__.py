"""`pixbench probe`: evaluate a frozen backbone without fine-tuning it."""
