//! The classic builder: a Dockerfile becomes an image, one step after the other.
//!
//! Knows no HTTP and no gRPC: what runs containers and keeps images is an [`Engine`], what the user reads goes to an
//! [`Output`]. The steps, their cache and their words are those of Docker's classic builder (`DOCKER_BUILDKIT=0`).

mod build;
mod change;
mod config;
mod copy;
mod dockerfile;
mod engine;
mod error;
mod health;
mod lexer;
mod matching;
mod owner;
mod root;
mod state;

pub use build::{Built, Options, build};
pub use change::change;
pub use config::{Config, Health, Nothing};
pub use dockerfile::{Dockerfile, Instruction, parse};
pub use engine::{Archive, Engine, Image, Mounted, NewImage, Output, Ran, Run};
pub use error::{Error, Result};
