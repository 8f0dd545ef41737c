"""How a delivery leaves the house: where it may go, how it is signed, what the region is told."""
