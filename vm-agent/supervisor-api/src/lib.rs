//! The containerd gRPC services that the guest's processes serve and call.
