"""Recipe -> pack: extraction, nulling and calibration."""
