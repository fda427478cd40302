"""`pixbench probe`: what a frozen trunk is good for, without fine-tuning it."""
