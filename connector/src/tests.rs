//! What a connector believes and refuses.
