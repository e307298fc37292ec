//! Many byte streams over one byte pipe, for transports that have only one (a virtio-serial port).
