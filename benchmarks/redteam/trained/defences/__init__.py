"""What a defender could do against trained attacks, measured on one set of attackers."""
