"""A smaller deep UNet: transformer layers dropped by measured importance, the rest trained after the full one."""
