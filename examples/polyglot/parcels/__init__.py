"""What the shop knows of its parcels: the warehouse, a program in Rust, packs them."""
