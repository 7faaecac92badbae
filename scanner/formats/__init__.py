"""bytes -> Adapter: tensor stores, one reader per format, and the identity of the base."""
