"""`pixbench probe`: what a frozen backbone is good for, without fine-tuning it."""
