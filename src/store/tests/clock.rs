//! What a replica believes of the store's clock.
