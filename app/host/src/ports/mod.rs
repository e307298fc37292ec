//! Published ports: the guest asks, the policy decides, listeners here carry connections into the guest.

mod bind;
mod listeners;
mod news;
mod policy;
mod udp;

pub use listeners::Ports;
pub use news::{NewsError, converse, follow};
pub use policy::address;
pub use udp::{LARGEST, datagram};
