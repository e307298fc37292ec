//! Where the VM stands, as everything in this service sees it.

use longshore_host_api::types::State;
use tokio::sync::watch;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Stopped,
    Starting { stage: String },
    Running,
    Paused { why: String },
    Stopping,
    Failed { why: String },
}

pub type PhaseReceiver = watch::Receiver<Phase>;
pub type PhaseSender = watch::Sender<Phase>;

impl Phase {
    pub fn state(&self) -> State {
        match self {
            Phase::Stopped => State::Stopped,
            Phase::Starting { .. } => State::Starting,
            Phase::Running => State::Running,
            Phase::Paused { .. } => State::Paused,
            Phase::Stopping => State::Stopping,
            Phase::Failed { .. } => State::Failed,
        }
    }

    pub fn detail(&self) -> Option<String> {
        match self {
            Phase::Starting { stage } => Some(stage.clone()),
            Phase::Paused { why } | Phase::Failed { why } => Some(why.clone()),
            _ => None,
        }
    }
}
