//! The background host service: VM life cycle, settings, docker socket, ports, shares.
//!
//! It does not know QEMU (that is `longshore-vm`) nor Docker's API (that is the guest's daemon, but for a look at `/version`, at the store's health, and at lists for a diagnosis).

mod accept;
pub mod api;
mod boot;
mod channel;
mod credentials;
mod daemon_json;
pub mod data_place;
mod diagnose;
pub mod docker_proxy;
mod doctor;
pub mod engine;
mod good_image;
pub mod guest;
mod image;
mod last_good;
pub mod layers;
mod login;
mod logs;
mod machine;
mod operation;
mod phase;
pub mod ports;
mod redact;
pub mod service;
pub mod settings_file;
mod shares;
mod splice;
mod store_check;
mod usage;
mod vm;
mod vm_process;
mod web;
mod welcome;
