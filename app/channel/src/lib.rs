//! Byte streams between the host and numbered guest ports: a vsock device, and a multiplexed virtio-serial port.

pub mod hybrid;
