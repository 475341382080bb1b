"""Ways to control the scale: what is measured of each, how they rank, and the disputed one."""
