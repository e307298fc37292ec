//! Messages, port numbers and mux frames between host and guest.
pub mod mux;
