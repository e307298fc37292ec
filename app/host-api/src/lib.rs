//! Types and client of the host service's API.
