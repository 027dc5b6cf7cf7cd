"""What a host reports: its status, journal messages, metrics, and a report to the controller."""
