"""Where training programs meet the scanner. Nothing here is imported by a scan."""
