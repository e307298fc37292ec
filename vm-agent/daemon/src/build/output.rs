//! The builder's words as lines of Docker's JSON stream.

use longshore_builder::Output;
use serde_json::{Value, json};
use tokio::sync::mpsc;

#[derive(Clone)]
pub struct Lines {
    sender: mpsc::Sender<Value>,
    quiet: bool,
}

impl Lines {
    pub fn new(sender: mpsc::Sender<Value>) -> Self {
        Self {
            sender,
            quiet: false,
        }
    }

    /// Says nothing of its steps (`build -q`).
    pub fn quiet(self) -> Self {
        Self {
            quiet: true,
            ..self
        }
    }

    pub async fn line(&self, line: Value) {
        if !self.quiet {
            let _ = self.sender.send(line).await;
        }
    }

    pub async fn stream(&self, text: &str) {
        let _ = self.sender.send(json!({ "stream": text })).await;
    }

    /// The end of a build that failed; the CLI exits with `code`, or with 1.
    pub async fn fail(&self, message: &str, code: i32) {
        let detail = match code {
            0 => json!({ "message": message }),
            code => json!({ "code": code, "message": message }),
        };
        let line = json!({ "errorDetail": detail, "error": message });
        let _ = self.sender.send(line).await;
    }
}

#[async_trait::async_trait]
impl Output for Lines {
    async fn say(&self, text: &str) {
        self.line(json!({ "stream": text })).await;
    }

    async fn warn(&self, text: &str) {
        // As Docker's builder colours it.
        self.line(json!({ "stream": format!("\u{1b}[91m{text}\u{1b}[0m") }))
            .await;
    }

    async fn made(&self, id: &str) {
        self.line(json!({ "aux": { "ID": id } })).await;
    }
}
